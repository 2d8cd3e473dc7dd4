//! Finds the bytes of one frame in a file's pixel data (PS3.5 annex A.4).

use std::borrow::Cow;
use std::ops::Range;

use super::codec::EncodedFrame;
use super::damaged;
use super::data_set::{DataSet, EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, PixelData};
use super::description::Description;
use super::transfer_syntax::{Compression, Encoding};
use crate::error::DicomError;

/// Where each frame of a file is.
#[derive(Debug)]
pub(super) enum Frames {
    /// One after the other, as many bits each.
    Native {
        start: usize,
        bits_per_frame: usize,
        /// Whether the two bytes of each word are to be swapped.
        is_turned: bool,
    },
    /// Fragments of each frame.
    Encapsulated(Vec<Vec<Range<usize>>>),
}

/// The bytes of one frame; joined if they are in several fragments.
pub(super) struct FrameBytes<'a> {
    bytes: Cow<'a, [u8]>,
    first_bit: usize,
}

impl FrameBytes<'_> {
    /// The frame as decoders take it.
    pub(super) fn encoded(&self) -> EncodedFrame<'_> {
        EncodedFrame {
            bytes: &self.bytes,
            first_bit: self.first_bit,
        }
    }
}

impl Frames {
    /// Finds all frames.
    ///
    /// # Errors
    /// [`DicomError::NoImage`] without pixel data; [`DicomError::Damaged`] if there are fewer bytes
    /// than the description needs, or if the frames cannot be told apart.
    pub(super) fn of(data_set: &DataSet, description: &Description) -> Result<Self, DicomError> {
        let is_native = data_set.syntax.compression == Compression::Native;
        match data_set.pixel_data.as_ref().ok_or(DicomError::NoImage)? {
            PixelData::Native { range, is_words } if is_native => {
                let is_turned = *is_words
                    && data_set.syntax.encoding == Encoding::ExplicitBig
                    && description.format.bits_allocated <= 8;
                Self::native(range.clone(), is_turned, description)
            }
            PixelData::Encapsulated(fragments) if !is_native => {
                Self::encapsulated(fragments, data_set, description.num_frames)
            }
            PixelData::Native { .. } => Err(damaged(
                "its pixel data is not compressed as its transfer syntax says",
            )),
            PixelData::Encapsulated(_) => Err(damaged(
                "its pixel data is compressed and its transfer syntax is not",
            )),
        }
    }

    fn native(
        range: Range<usize>,
        is_turned: bool,
        description: &Description,
    ) -> Result<Self, DicomError> {
        let format = &description.format;
        let bits_per_frame = match format.bits_allocated {
            1 => format.num_pixels(),
            _ => format.native_bytes() * 8,
        };
        let bits = bits_per_frame.checked_mul(description.num_frames);
        if bits.is_none_or(|bits| bits.div_ceil(8) > range.len()) {
            return Err(damaged(
                "the pixel data is shorter than its rows, columns and frames need",
            ));
        }
        Ok(Self::Native {
            start: range.start,
            bits_per_frame,
            is_turned,
        })
    }

    fn encapsulated(
        fragments: &[Range<usize>],
        data_set: &DataSet,
        num_frames: usize,
    ) -> Result<Self, DicomError> {
        let Some((table, fragments)) = fragments.split_first() else {
            return Err(DicomError::NoImage);
        };
        if fragments.is_empty() {
            return Err(DicomError::NoImage);
        }
        if num_frames == 1 {
            return Ok(Self::Encapsulated(vec![fragments.to_vec()]));
        }
        let root = data_set.root();
        if let Some(offsets) = root.raw(EXTENDED_OFFSET_TABLE) {
            let lengths = root.raw(EXTENDED_OFFSET_TABLE_LENGTHS);
            let lengths = lengths.map(|raw| raw.long_words().collect::<Vec<_>>());
            let groups = group_at(fragments, offsets.long_words(), num_frames);
            if let Some(groups) = groups {
                return Ok(Self::Encapsulated(match lengths {
                    Some(lengths) => shorten(groups, &lengths),
                    None => groups,
                }));
            }
        }
        let offsets = data_set.bytes()[table.clone()].as_chunks::<4>().0;
        let offsets = offsets
            .iter()
            .map(|word| u64::from(u32::from_le_bytes(*word)));
        if let Some(groups) = group_at(fragments, offsets, num_frames) {
            return Ok(Self::Encapsulated(groups));
        }
        if fragments.len() == num_frames {
            return Ok(Self::Encapsulated(
                fragments
                    .iter()
                    .map(|fragment| vec![fragment.clone()])
                    .collect(),
            ));
        }
        let groups = group_by_markers(fragments, data_set.bytes());
        match groups.len() == num_frames {
            true => Ok(Self::Encapsulated(groups)),
            false => Err(damaged("its fragments cannot be told apart as frames")),
        }
    }

    /// Returns the bytes of frame `idx`, counted from 0.
    pub(super) fn bytes<'a>(&self, data_set: &'a DataSet, idx: usize) -> FrameBytes<'a> {
        let all = data_set.bytes();
        match self {
            Self::Native {
                start,
                bits_per_frame,
                is_turned,
            } => {
                let first = idx * bits_per_frame;
                let range = start + first / 8..start + (first + bits_per_frame).div_ceil(8);
                let bytes = if *is_turned {
                    // A frame of odd length begins in the middle of a word.
                    let turned = |at: usize| start + ((at - start) ^ 1);
                    let byte = |at| all.get(turned(at)).copied().unwrap_or(all[at]);
                    Cow::Owned(range.map(byte).collect())
                } else {
                    Cow::Borrowed(&all[range])
                };
                FrameBytes {
                    bytes,
                    first_bit: first % 8,
                }
            }
            Self::Encapsulated(frames) => {
                let bytes = match frames[idx].as_slice() {
                    [fragment] => Cow::Borrowed(&all[fragment.clone()]),
                    fragments => {
                        let parts: Vec<&[u8]> =
                            fragments.iter().map(|range| &all[range.clone()]).collect();
                        Cow::Owned(parts.concat())
                    }
                };
                FrameBytes {
                    bytes,
                    first_bit: 0,
                }
            }
        }
    }
}

/// Divides fragments where a table says that frames start, each offset counted from the first
/// fragment's header. `None` if a frame does not start at a fragment.
fn group_at(
    fragments: &[Range<usize>],
    offsets: impl ExactSizeIterator<Item = u64>,
    num_frames: usize,
) -> Option<Vec<Vec<Range<usize>>>> {
    const HEADER: usize = 8;
    let origin = fragments.first()?.start - HEADER;
    if offsets.len() != num_frames {
        return None;
    }
    let mut firsts = Vec::with_capacity(num_frames);
    for offset in offsets {
        let start = usize::try_from(offset)
            .ok()?
            .checked_add(origin)?
            .checked_add(HEADER)?;
        let first = fragments
            .binary_search_by_key(&start, |fragment| fragment.start)
            .ok()?;
        if firsts.last().is_some_and(|&before| before >= first) {
            return None;
        }
        firsts.push(first);
    }
    let ends = firsts[1..].iter().copied().chain([fragments.len()]);
    Some(
        firsts
            .iter()
            .zip(ends)
            .map(|(&first, end)| fragments[first..end].to_vec())
            .collect(),
    )
}

/// Drops padding, of which the table of lengths tells.
fn shorten(mut groups: Vec<Vec<Range<usize>>>, lengths: &[u64]) -> Vec<Vec<Range<usize>>> {
    for (group, &length) in groups.iter_mut().zip(lengths) {
        if let ([only], Ok(length)) = (group.as_mut_slice(), usize::try_from(length)) {
            only.end = only.end.min(only.start.saturating_add(length));
        }
    }
    groups
}

/// Divides fragments where an image of JPEG, JPEG-LS or JPEG 2000 starts.
fn group_by_markers(fragments: &[Range<usize>], bytes: &[u8]) -> Vec<Vec<Range<usize>>> {
    let starts_image = |fragment: &Range<usize>| {
        let head = &bytes[fragment.clone()];
        head.starts_with(&[0xff, 0xd8, 0xff]) || head.starts_with(&[0xff, 0x4f, 0xff, 0x51])
    };
    let mut groups: Vec<Vec<Range<usize>>> = Vec::new();
    for fragment in fragments {
        match groups.last_mut() {
            Some(group) if !starts_image(fragment) => group.push(fragment.clone()),
            _ => groups.push(vec![fragment.clone()]),
        }
    }
    groups
}
