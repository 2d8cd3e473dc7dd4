//! Walks over a data set's elements, without recursion, and keeps the few that are read.
//!
//! This is the gate before everything else: whatever the bytes are, the walk ends, its depth and the
//! number of elements are bounded, and every length is compared with what is left before it is used.

use std::ops::Range;

use super::tag::{
    DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA, ITEM, ITEM_END, Kind, PIXEL_DATA, SEQUENCE_END, Tag,
    kind_of,
};
use super::{Element, Item, Value};
use crate::error::DicomError;
use crate::image::dicom::damaged;

/// Most sequences within sequences, items counted apart.
const MAX_DEPTH: usize = 32;
/// Most elements and items of a file. Enhanced objects have some fifty for each frame.
const MAX_ELEMENTS: usize = 1_000_000;
/// Most fragments of pixel data.
const MAX_FRAGMENTS: usize = 262_144;
/// The length of what ends with a delimiter.
const UNDEFINED: u32 = u32::MAX;

/// How the elements of a data set, or of a sequence in it, are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writing {
    pub(super) is_explicit: bool,
    pub(super) is_big_endian: bool,
}

/// A file's pixel data, in bytes of the data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::image::dicom) enum PixelData {
    /// All frames in one value. Its end may lie beyond the bytes that have been inflated so far.
    Native {
        range: Range<usize>,
        /// Whether samples are in words of 16 bits, whose bytes big endian turns around.
        is_words: bool,
    },
    /// Fragments; the first is a table of the frames' offsets.
    Encapsulated(Vec<Range<usize>>),
}

/// What a walk finds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) root: Item,
    pub(super) pixel_data: Option<PixelData>,
}

/// Walks over the elements from `start` to the pixel data or to the end.
///
/// `is_whole` is false for bytes that go on beyond what is here: native pixel data may then end there.
///
/// # Errors
/// [`DicomError::Damaged`] where lengths or delimiters do not fit, [`DicomError::TooMany`] beyond the
/// limits above, [`DicomError::Unsupported`] for pixels of floating point.
pub(super) fn walk(
    bytes: &[u8],
    start: usize,
    writing: Writing,
    is_whole: bool,
) -> Result<Found, DicomError> {
    let mut walk = Walk {
        bytes,
        at: start,
        is_whole,
        num_elements: 0,
        scopes: vec![Scope {
            inside: Inside::Item(Item::default()),
            end: None,
            limit: bytes.len(),
            writing,
            is_kept: true,
        }],
    };
    let pixel_data = walk.run()?;
    let root = walk.into_root();
    Ok(Found { root, pixel_data })
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    is_whole: bool,
    num_elements: usize,
    /// From the data set itself to what is open now; items and sequences in turn.
    scopes: Vec<Scope>,
}

struct Scope {
    inside: Inside,
    /// Where it ends, if its length is defined.
    end: Option<usize>,
    /// Where the innermost thing around it ends that has a defined length: nothing in it goes beyond.
    limit: usize,
    writing: Writing,
    /// Whether it is among what is read, and all around it.
    is_kept: bool,
}

enum Inside {
    Item(Item),
    Sequence { tag: Tag, items: Vec<Item> },
}

struct Header {
    tag: Tag,
    /// Not given where representations are not written.
    vr: Option<[u8; 2]>,
    length: u32,
}

impl Walk<'_> {
    /// Returns the pixel data as soon as it is reached.
    fn run(&mut self) -> Result<Option<PixelData>, DicomError> {
        loop {
            while self.scopes.len() > 1 && self.scope().end.is_some_and(|end| self.at >= end) {
                self.close();
            }
            let is_outermost = self.scopes.len() == 1;
            if self.at >= self.scope().limit && is_outermost {
                return Ok(None);
            }
            self.count()?;
            match self.scope().inside {
                Inside::Sequence { .. } => self.next_item()?,
                Inside::Item(_) => {
                    if let Some(pixel_data) = self.next_element()? {
                        return Ok(Some(pixel_data));
                    }
                }
            }
        }
    }

    fn scope(&self) -> &Scope {
        self.scopes
            .last()
            .expect("the data set itself is never closed")
    }

    fn count(&mut self) -> Result<(), DicomError> {
        self.num_elements += 1;
        if self.num_elements > MAX_ELEMENTS {
            return Err(DicomError::TooMany {
                what: "elements",
                max: MAX_ELEMENTS,
            });
        }
        Ok(())
    }

    /// Reads the header of an item, or the end of the sequence.
    fn next_item(&mut self) -> Result<(), DicomError> {
        let Scope {
            limit,
            writing,
            is_kept,
            end,
            ..
        } = *self.scope();
        let (tag, length) = self.delimiter(writing.is_big_endian)?;
        match tag {
            ITEM => self.open(
                Inside::Item(Item::default()),
                length,
                limit,
                writing,
                is_kept,
            ),
            SEQUENCE_END if end.is_none() => {
                self.close();
                Ok(())
            }
            _ => Err(damaged("a sequence holds something that is not an item")),
        }
    }

    /// Reads an element, up to the value of a sequence, or the end of the item.
    fn next_element(&mut self) -> Result<Option<PixelData>, DicomError> {
        let Scope {
            limit,
            writing,
            is_kept,
            end,
            ..
        } = *self.scope();
        let is_outermost = self.scopes.len() == 1;
        let Header { tag, vr, length } = self.header(writing)?;
        if tag == ITEM_END {
            if is_outermost || end.is_some() {
                return Err(damaged("an item ends that has not begun"));
            }
            self.close();
            return Ok(None);
        }
        if tag.group() == ITEM.group() {
            return Err(damaged("a delimiter stands where an element should be"));
        }
        if is_outermost && matches!(tag, FLOAT_PIXEL_DATA | DOUBLE_FLOAT_PIXEL_DATA) {
            return Err(DicomError::Unsupported {
                what: "samples of floating point",
            });
        }
        if is_outermost && tag == PIXEL_DATA {
            return self.pixel_data(length, vr).map(Some);
        }
        let is_fragmented =
            length == UNDEFINED && (tag == PIXEL_DATA || vr.is_some_and(holds_bytes));
        if is_fragmented {
            self.fragments(writing.is_big_endian)?;
            return Ok(None);
        }
        let kind = kind_of(tag).filter(|_| is_kept);
        if length == UNDEFINED || kind == Some(Kind::Sequence) {
            // Of unknown representation: its inside is written without representations.
            let writing = match vr.as_ref() {
                Some(b"UN") => Writing {
                    is_explicit: false,
                    is_big_endian: false,
                },
                _ => writing,
            };
            let inside = Inside::Sequence {
                tag,
                items: Vec::new(),
            };
            self.open(inside, length, limit, writing, kind == Some(Kind::Sequence))?;
            return Ok(None);
        }
        let value = self.take(length as usize)?;
        if kind.is_some() {
            self.keep(Element {
                tag,
                value: Value::Bytes {
                    range: value,
                    is_big_endian: writing.is_big_endian,
                    is_signed: vr.map(|vr| vr == *b"SS"),
                },
            });
        }
        Ok(None)
    }

    /// Enters a sequence or an item.
    fn open(
        &mut self,
        inside: Inside,
        length: u32,
        limit: usize,
        writing: Writing,
        is_kept: bool,
    ) -> Result<(), DicomError> {
        let end = match length {
            UNDEFINED => None,
            length => {
                let end = self
                    .at
                    .checked_add(length as usize)
                    .filter(|&end| end <= limit);
                Some(end.ok_or(TOO_LONG)?)
            }
        };
        // Each sequence has items in it, so that a level takes two scopes.
        if self.scopes.len() > 2 * MAX_DEPTH {
            return Err(DicomError::TooMany {
                what: "nested sequences",
                max: MAX_DEPTH,
            });
        }
        self.scopes.push(Scope {
            inside,
            end,
            limit: end.unwrap_or(limit),
            writing,
            is_kept,
        });
        Ok(())
    }

    /// Leaves the innermost scope, and keeps it in the one around it if it is to be kept.
    fn close(&mut self) {
        let Some(Scope {
            inside,
            is_kept: true,
            ..
        }) = self.scopes.pop()
        else {
            return;
        };
        match inside {
            Inside::Sequence { tag, items } => self.keep(Element {
                tag,
                value: Value::Items(items),
            }),
            Inside::Item(item) => {
                if let Some(Scope {
                    inside: Inside::Sequence { items, .. },
                    ..
                }) = self.scopes.last_mut()
                {
                    items.push(item);
                }
            }
        }
    }

    fn keep(&mut self, element: Element) {
        if let Some(Scope {
            inside: Inside::Item(item),
            ..
        }) = self.scopes.last_mut()
        {
            item.elements.push(element);
        }
    }

    fn into_root(mut self) -> Item {
        // Pixel data stands in the data set itself, so nothing else is open when a walk ends well.
        match self.scopes.pop() {
            Some(Scope {
                inside: Inside::Item(root),
                ..
            }) => root,
            _ => Item::default(),
        }
    }

    /// Reads the value of the pixel data.
    fn pixel_data(&mut self, length: u32, vr: Option<[u8; 2]>) -> Result<PixelData, DicomError> {
        if length == UNDEFINED {
            return self.fragments(false).map(PixelData::Encapsulated);
        }
        let end = self.at + length as usize;
        if self.is_whole && end > self.bytes.len() {
            return Err(damaged("the pixel data ends early"));
        }
        Ok(PixelData::Native {
            range: self.at..end,
            is_words: vr == Some(*b"OW"),
        })
    }

    /// Reads fragments up to the end of their sequence. A file that ends behind a whole fragment, as
    /// some writers leave it, is taken.
    fn fragments(&mut self, is_big_endian: bool) -> Result<Vec<Range<usize>>, DicomError> {
        let limit = self.scope().limit;
        let mut fragments = Vec::new();
        while self.at < limit {
            let (tag, length) = self.delimiter(is_big_endian)?;
            match tag {
                SEQUENCE_END => break,
                ITEM if length != UNDEFINED => fragments.push(self.take(length as usize)?),
                _ => {
                    return Err(damaged(
                        "the pixel data holds something that is not a fragment",
                    ));
                }
            }
            if fragments.len() > MAX_FRAGMENTS {
                return Err(DicomError::TooMany {
                    what: "fragments",
                    max: MAX_FRAGMENTS,
                });
            }
        }
        Ok(fragments)
    }

    /// Moves over the next bytes.
    fn take(&mut self, length: usize) -> Result<Range<usize>, DicomError> {
        let end = self
            .at
            .checked_add(length)
            .filter(|&end| end <= self.scope().limit);
        let end = end.ok_or(TOO_LONG)?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DicomError> {
        let range = self.take(N)?;
        let bytes = self.bytes[range].try_into();
        Ok(bytes.expect("the range has this length"))
    }

    fn u16(&mut self, is_big_endian: bool) -> Result<u16, DicomError> {
        let bytes = self.array()?;
        Ok(if is_big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    fn u32(&mut self, is_big_endian: bool) -> Result<u32, DicomError> {
        let bytes = self.array()?;
        Ok(if is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn tag(&mut self, is_big_endian: bool) -> Result<Tag, DicomError> {
        let group = self.u16(is_big_endian)?;
        let element = self.u16(is_big_endian)?;
        Ok(Tag(u32::from(group) << 16 | u32::from(element)))
    }

    /// The tag and the length of an item, a fragment or an end.
    fn delimiter(&mut self, is_big_endian: bool) -> Result<(Tag, u32), DicomError> {
        Ok((self.tag(is_big_endian)?, self.u32(is_big_endian)?))
    }

    fn header(&mut self, writing: Writing) -> Result<Header, DicomError> {
        let Writing {
            is_explicit,
            is_big_endian,
        } = writing;
        let tag = self.tag(is_big_endian)?;
        if tag.group() == ITEM.group() || !is_explicit {
            return Ok(Header {
                tag,
                vr: None,
                length: self.u32(is_big_endian)?,
            });
        }
        let vr = self.array::<2>()?;
        if !is_vr(vr) {
            // Some writers leave the representation out in the middle of a file.
            self.at -= vr.len();
            return Ok(Header {
                tag,
                vr: None,
                length: self.u32(is_big_endian)?,
            });
        }
        let length = if has_long_length(vr) {
            self.u16(is_big_endian)?;
            self.u32(is_big_endian)?
        } else {
            u32::from(self.u16(is_big_endian)?)
        };
        Ok(Header {
            tag,
            vr: Some(vr),
            length,
        })
    }
}

/// Whether two bytes can be a value representation.
pub(super) fn is_vr(bytes: [u8; 2]) -> bool {
    bytes.iter().all(u8::is_ascii_uppercase)
}

/// Whether a representation is of bytes, which may come in fragments.
fn holds_bytes(vr: [u8; 2]) -> bool {
    matches!(&vr, b"OB" | b"OW" | b"OD" | b"OF" | b"OL" | b"OV")
}

/// Whether a representation's length has 32 bits, behind two reserved bytes (PS3.5 section 7.1.2).
fn has_long_length(vr: [u8; 2]) -> bool {
    matches!(
        &vr,
        b"OB"
            | b"OD"
            | b"OF"
            | b"OL"
            | b"OV"
            | b"OW"
            | b"SQ"
            | b"SV"
            | b"UC"
            | b"UN"
            | b"UR"
            | b"UT"
            | b"UV"
    )
}

const TOO_LONG: DicomError = damaged("an element is longer than what is left of the file");
