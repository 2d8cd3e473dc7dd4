//! The first directory of a TIFF structure, which EXIF is too.
//!
//! Reads values out of a slice: nothing is allocated, and an offset or count that leaves the file
//! is an absent value.

/// The first image file directory.
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    layout: Layout,
    /// Where the entries start.
    entries_at: usize,
    num_entries: usize,
}

/// Returns the number of images of a TIFF, at most `most`: of its directories, those that are not a
/// smaller copy of another.
pub(super) fn num_images(bytes: &[u8], most: usize) -> usize {
    const KIND: u16 = 254;
    const SMALLER_COPY: u32 = 1;
    const MAX_ENTRIES: usize = 1 << 20;
    let mut num_images = 0;
    let mut num_entries = 0usize;
    let mut known = Vec::new();
    let mut directory = Directory::first_in(bytes);
    while let Some(found) = directory {
        num_entries = num_entries.saturating_add(found.num_entries);
        // Directories may refer to each other in a circle, and share their entries.
        let is_known = known.contains(&found.entries_at);
        if is_known || known.len() == most || num_entries > MAX_ENTRIES {
            break;
        }
        known.push(found.entries_at);
        let kind = found.value(KIND).unwrap_or(0);
        num_images += usize::from(kind & SMALLER_COPY == 0);
        directory = found.next();
    }
    num_images
}

/// How numbers and entries are laid out.
#[derive(Clone, Copy)]
struct Layout {
    little_endian: bool,
    /// BigTIFF: counts and offsets of 8 bytes.
    big: bool,
}

impl Layout {
    fn uint(self, bytes: &[u8]) -> u64 {
        let step = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        if self.little_endian {
            bytes.iter().rev().fold(0, step)
        } else {
            bytes.iter().fold(0, step)
        }
    }

    /// Bytes of an offset, and of the values that fit into an entry.
    fn word(self) -> usize {
        if self.big { 8 } else { 4 }
    }
}

/// One tag's values.
pub(super) struct Entry<'a> {
    layout: Layout,
    /// TIFF's number of the type.
    kind: u16,
    /// The values, in the file's byte order.
    values: &'a [u8],
    /// Where in the file they stand.
    pub(super) values_at: usize,
}

impl<'a> Directory<'a> {
    pub(super) fn first_in(bytes: &'a [u8]) -> Option<Self> {
        let (little_endian, big) = match bytes {
            [b'I', b'I', 42, 0, ..] => (true, false),
            [b'M', b'M', 0, 42, ..] => (false, false),
            [b'I', b'I', 43, 0, 8, 0, 0, 0, ..] => (true, true),
            [b'M', b'M', 0, 43, 0, 8, 0, 0, ..] => (false, true),
            _ => return None,
        };
        let layout = Layout { little_endian, big };
        let (offset, count) = if big { (8..16, 8) } else { (4..8, 2) };
        let directory = usize::try_from(layout.uint(bytes.get(offset)?)).ok()?;
        let entries_at = directory.checked_add(count)?;
        let num_entries = usize::try_from(layout.uint(bytes.get(directory..entries_at)?)).ok()?;
        Some(Self {
            bytes,
            layout,
            entries_at,
            num_entries,
        })
    }

    /// Returns the directory after this one, at another place of the file.
    fn next(&self) -> Option<Self> {
        let layout = self.layout;
        let end = self.num_entries.checked_mul(self.entry_len())?;
        let at = self.entries_at.checked_add(end)?;
        let offset = self.bytes.get(at..at.checked_add(layout.word())?)?;
        let directory = usize::try_from(layout.uint(offset)).ok()?;
        if directory == 0 {
            return None;
        }
        let entries_at = directory.checked_add(if layout.big { 8 } else { 2 })?;
        let num_entries = layout.uint(self.bytes.get(directory..entries_at)?);
        Some(Self {
            entries_at,
            num_entries: usize::try_from(num_entries).ok()?,
            ..*self
        })
    }

    fn raw_entries(&self) -> impl Iterator<Item = &'a [u8]> {
        let entries = self.bytes.get(self.entries_at..).unwrap_or_default();
        entries
            .chunks_exact(self.entry_len())
            .take(self.num_entries)
    }

    /// Tag, type, count, values or their offset.
    fn entry_len(&self) -> usize {
        4 + 2 * self.layout.word()
    }

    /// Whether there are entries of types that are not known.
    pub(super) fn has_unknown_types(&self) -> bool {
        self.raw_entries()
            .any(|entry| value_len(self.layout.uint(&entry[2..4]) as u16).is_none())
    }

    /// Whether numbers begin with their least byte.
    pub(super) fn is_little_endian(&self) -> bool {
        self.layout.little_endian
    }

    /// Whether the file is a BigTIFF.
    pub(super) fn is_big(&self) -> bool {
        self.layout.big
    }

    /// The place and the bytes of a tag's entry. Of several the last, as Pillow and the `tiff`
    /// crate have it.
    fn raw_entry(&self, tag: u16) -> Option<(usize, &'a [u8])> {
        let named = |entry: &[u8]| self.layout.uint(&entry[..2]) == u64::from(tag);
        let (idx, entry) = self
            .raw_entries()
            .enumerate()
            .filter(|(_, e)| named(e))
            .last()?;
        Some((self.entries_at + idx * self.entry_len(), entry))
    }

    /// Whether there is an entry for the tag, sound or not.
    pub(super) fn names(&self, tag: u16) -> bool {
        self.raw_entry(tag).is_some()
    }

    /// A tag's entry, if all its values are in the file.
    pub(super) fn entry(&self, tag: u16) -> Option<Entry<'a>> {
        let word = self.layout.word();
        let (entry_at, entry) = self.raw_entry(tag)?;
        let kind = self.layout.uint(&entry[2..4]) as u16;
        let count = usize::try_from(self.layout.uint(&entry[4..4 + word])).ok()?;
        let len = count.checked_mul(value_len(kind)?)?;
        let values_at = if len <= word {
            entry_at + 4 + word
        } else {
            usize::try_from(self.layout.uint(&entry[4 + word..])).ok()?
        };
        let values = self.bytes.get(values_at..values_at.checked_add(len)?)?;
        Some(Entry {
            layout: self.layout,
            kind,
            values,
            values_at,
        })
    }

    /// A tag's only value, if it is an unsigned number.
    pub(super) fn value(&self, tag: u16) -> Option<u32> {
        let entry = self.entry(tag)?;
        let mut values = entry.uints();
        let value = values.next()?;
        values.next().is_none().then(|| u32::try_from(value).ok())?
    }
}

impl<'a> Entry<'a> {
    /// The bytes of the values, in the file's order.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.values
    }

    /// The values, none if they are not unsigned fractions.
    pub(super) fn rationals(&self) -> impl Iterator<Item = f64> {
        let values = if self.kind == RATIONAL {
            self.values
        } else {
            &[]
        };
        values.as_chunks::<8>().0.iter().map(|fraction| {
            let (above, below) = fraction.split_at(4);
            self.layout.uint(above) as f64 / self.layout.uint(below) as f64
        })
    }

    /// The values, none if they are not unsigned numbers.
    pub(super) fn uints(&self) -> impl Iterator<Item = u64> {
        let unsigned = matches!(self.kind, BYTE | SHORT | LONG | LONG8);
        let values = if unsigned { self.values } else { &[] };
        let len = value_len(self.kind).expect("an entry of an unknown type is never made");
        values
            .chunks_exact(len)
            .map(|value| self.layout.uint(value))
    }

    /// `value` as the file would hold it in this entry's first place.
    pub(super) fn encode(&self, value: u16) -> Option<Vec<u8>> {
        let len = match self.kind {
            SHORT => 2,
            LONG => 4,
            _ => return None,
        };
        let mut bytes = vec![0; len];
        let number = if self.layout.little_endian {
            bytes[..2].copy_from_slice(&value.to_le_bytes());
            bytes
        } else {
            bytes[len - 2..].copy_from_slice(&value.to_be_bytes());
            bytes
        };
        Some(number)
    }
}

const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;
const LONG8: u16 = 16;

/// Bytes of one value of a type.
fn value_len(kind: u16) -> Option<usize> {
    Some(match kind {
        BYTE | 2 | 6 | 7 => 1,
        SHORT | 8 => 2,
        LONG | 9 | 11 | 13 => 4,
        RATIONAL | 10 | 12 | LONG8 | 17 | 18 => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of one entry, little-endian.
    fn file(tag: u16, kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let mut bytes = b"II*\0\x08\0\0\0\x01\0".to_vec();
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value);
        bytes
    }

    #[test]
    fn reads_a_value_and_where_it_stands() {
        let bytes = file(274, SHORT, 1, [6, 0, 0, 0]);
        let directory = Directory::first_in(&bytes).unwrap();
        assert_eq!(directory.value(274), Some(6));
        assert_eq!(directory.entry(274).unwrap().values_at, 18);
        assert_eq!(directory.value(275), None);
    }

    #[test]
    fn what_leaves_the_file_is_absent() {
        for (kind, count, value) in [
            (LONG, 2, [0xff; 4]),
            (LONG, u32::MAX, [8, 0, 0, 0]),
            (99, 1, [6, 0, 0, 0]),
            (SHORT, 0, [6, 0, 0, 0]),
            (SHORT, 2, [6, 0, 6, 0]),
        ] {
            let bytes = file(274, kind, count, value);
            let directory = Directory::first_in(&bytes).unwrap();
            assert_eq!(directory.value(274), None, "type {kind}, {count} values");
        }
        let whole = file(274, SHORT, 1, [6, 0, 0, 0]);
        for len in 0..whole.len() {
            let value = Directory::first_in(&whole[..len]).and_then(|d| d.value(274));
            assert_eq!(value, None, "{len} bytes");
        }
    }

    #[test]
    fn both_byte_orders() {
        let bytes = *b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        let directory = Directory::first_in(&bytes).unwrap();
        assert_eq!(directory.value(274), Some(6));
        assert_eq!(directory.entry(274).unwrap().encode(3), Some(vec![0, 3]));
    }
}
