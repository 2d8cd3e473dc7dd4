//! Tables that map samples to other numbers: modality LUT, VOI LUT, palettes (PS3.3 sections C.11.1,
//! C.11.2 and C.7.6.3.1.5).

use super::damaged;
use super::data_set::{ItemView, RawValue, Tag};
use crate::error::DicomError;

/// A table with an entry for each of a range of samples; samples below it get the first entry, those
/// above it the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lut {
    /// The sample that gets the first entry.
    first: i32,
    /// At least one.
    entries: Vec<u16>,
    /// Bits of an entry, 1 to 16.
    bits: u32,
}

impl Lut {
    /// Reads a table with its descriptor; `None` unless both are there.
    ///
    /// `is_signed` says whether samples are, for files that do not say of the descriptor.
    ///
    /// # Errors
    /// [`DicomError::Damaged`] for a descriptor without three numbers and for too few entries.
    pub(super) fn read(
        item: ItemView<'_>,
        descriptor: Tag,
        data: Tag,
        is_signed: bool,
    ) -> Result<Option<Self>, DicomError> {
        Self::read_as(plain, item, [descriptor, data], is_signed)
    }

    /// Reads a table that is stored as segments (PS3.3 section C.7.9.2); `None` unless it is there.
    ///
    /// # Errors
    /// As [`Self::read`], and for segments that do not fit together.
    pub(super) fn read_segmented(
        item: ItemView<'_>,
        descriptor: Tag,
        data: Tag,
        is_signed: bool,
    ) -> Result<Option<Self>, DicomError> {
        Self::read_as(segmented, item, [descriptor, data], is_signed)
    }

    fn read_as(
        entries: fn(RawValue<'_>, &Descriptor) -> Result<Vec<u16>, DicomError>,
        item: ItemView<'_>,
        [descriptor, data]: [Tag; 2],
        is_signed: bool,
    ) -> Result<Option<Self>, DicomError> {
        let (Some(descriptor), Some(data)) = (item.raw(descriptor), item.raw(data)) else {
            return Ok(None);
        };
        let descriptor = Descriptor::of(descriptor, is_signed)?;
        let entries = entries(data, &descriptor)?;
        Ok(Some(Self::new(descriptor.first, entries, descriptor.bits)))
    }

    fn new(first: i32, entries: Vec<u16>, stated_bits: u32) -> Self {
        // Some writers state 16 bits for entries of 8, others 8 for entries of more.
        let needed = u16::BITS - largest(&entries).leading_zeros();
        Self {
            first,
            entries,
            bits: stated_bits.clamp(1, 16).max(needed),
        }
    }

    /// Returns a sample's entry.
    pub(super) fn at(&self, sample: i32) -> u16 {
        let last = self.entries.len() as i64 - 1;
        let idx = (i64::from(sample) - i64::from(self.first)).clamp(0, last);
        self.entries[idx as usize]
    }

    /// The largest number that an entry can be.
    pub(super) fn max_entry(&self) -> u16 {
        ((1u32 << self.bits) - 1) as u16
    }

    /// The largest entry that there is.
    pub(super) fn largest(&self) -> u16 {
        largest(&self.entries)
    }
}

fn largest(entries: &[u16]) -> u16 {
    entries.iter().copied().max().unwrap_or(0)
}

struct Descriptor {
    num_entries: usize,
    first: i32,
    bits: u32,
}

impl Descriptor {
    fn of(raw: RawValue<'_>, is_signed: bool) -> Result<Self, DicomError> {
        let mut words = raw.words();
        let (Some(count), Some(first), Some(bits)) = (words.next(), words.next(), words.next())
        else {
            return Err(damaged(
                "the descriptor of a look-up table has fewer than three numbers",
            ));
        };
        Ok(Self {
            num_entries: match count {
                0 => 1 << 16,
                count => count.into(),
            },
            first: match raw.is_signed.unwrap_or(is_signed) {
                true => i32::from(first as i16),
                false => first.into(),
            },
            bits: bits.into(),
        })
    }
}

/// Reads entries one after the other: words, or bytes where there are not enough for words.
fn plain(data: RawValue<'_>, descriptor: &Descriptor) -> Result<Vec<u16>, DicomError> {
    let num_entries = descriptor.num_entries;
    let entries: Vec<u16> = if data.bytes.len() >= 2 * num_entries {
        data.words().take(num_entries).collect()
    } else {
        bytes_of(data).take(num_entries).collect()
    };
    match entries.len() < num_entries {
        true => Err(damaged("a look-up table has fewer entries than it states")),
        false => Ok(entries),
    }
}

/// Reads segments.
fn segmented(data: RawValue<'_>, descriptor: &Descriptor) -> Result<Vec<u16>, DicomError> {
    let words: Vec<u16> = match descriptor.bits {
        8 => bytes_of(data).collect(),
        _ => data.words().collect(),
    };
    expand(&words, descriptor.num_entries)
}

/// Entries of 8 bits, two in each word: the first of them in its lower half.
fn bytes_of(data: RawValue<'_>) -> impl Iterator<Item = u16> {
    let swapped = usize::from(data.is_big_endian);
    let whole = data.bytes.len() & !1;
    (0..data.bytes.len()).map(move |idx| {
        let place = if idx < whole { idx ^ swapped } else { idx };
        u16::from(data.bytes[place])
    })
}

/// Expands segments to entries.
fn expand(words: &[u16], num_entries: usize) -> Result<Vec<u16>, DicomError> {
    const UNFIT: DicomError = damaged("the segments of a palette do not fit together");
    let mut entries: Vec<u16> = Vec::with_capacity(num_entries);
    let mut at = 0;
    // What an indirect segment repeats is read in its place: for so many segments, and then where it
    // goes on.
    let mut repeating: Option<(usize, usize)> = None;
    while entries.len() < num_entries {
        if let Some((0, back)) = repeating {
            at = back;
            repeating = None;
        }
        let &[opcode, count] = words
            .get(at..at + 2)
            .and_then(|head| head.first_chunk())
            .ok_or(UNFIT)?;
        let count = usize::from(count);
        let room = num_entries - entries.len();
        match opcode {
            0 => {
                let values = words.get(at + 2..at + 2 + count).ok_or(UNFIT)?;
                entries.extend(values.iter().take(room));
                at += 2 + count;
            }
            1 => {
                let end = i64::from(*words.get(at + 2).ok_or(UNFIT)?);
                let start = i64::from(*entries.last().ok_or(UNFIT)?);
                let steps = count as i64;
                let points = (1..=steps).map(|step| {
                    // To the nearest, halves upwards.
                    ((2 * (start * steps + (end - start) * step) + steps).div_euclid(2 * steps))
                        as u16
                });
                entries.extend(points.take(room));
                at += 3;
            }
            2 if repeating.is_none() => {
                let offset = words.get(at + 2..at + 4).ok_or(UNFIT)?;
                repeating = Some((count, at + 4));
                at = usize::from(offset[0]) | usize::from(offset[1]) << 16;
                continue;
            }
            _ => return Err(UNFIT),
        }
        if count == 0 {
            return Err(UNFIT);
        }
        if let Some((left, _)) = &mut repeating {
            *left -= 1;
        }
    }
    Ok(entries)
}
