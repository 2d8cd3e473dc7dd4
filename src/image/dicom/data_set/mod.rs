//! Reads a DICOM file (PS3.5, PS3.10): its few attributes that are read, and where its pixel data is.
//!
//! ```text
//! [128 bytes, "DICM"]  [group 2, explicit little endian]  elements …  pixel data
//!      may be absent        may be absent                  as group 2 or the first element says
//! ```
//!
//! Values stay in the file's bytes and are read when they are asked for.

mod inflate;
mod tag;
#[cfg(test)]
mod tests;
mod values;
mod walk;

use std::ops::Range;

pub(super) use self::tag::*;
pub(super) use self::values::{ItemView, RawValue};
pub(super) use self::walk::PixelData;
use self::walk::{Found, Writing, is_vr, walk};
use super::transfer_syntax::{Compression, Encoding, TransferSyntax};
use crate::error::DicomError;

/// The attributes of a data set or of an item, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Item {
    elements: Vec<Element>,
}

#[derive(Debug)]
struct Element {
    tag: Tag,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Bytes {
        range: Range<usize>,
        is_big_endian: bool,
        /// Whether numbers are in two's complement; not known where representations are not written.
        is_signed: Option<bool>,
    },
    Items(Vec<Item>),
}

/// A file whose structure has been checked.
pub(super) struct DataSet {
    /// The file, or what its deflated part inflates to.
    bytes: Vec<u8>,
    root: Item,
    /// How its elements and frames are written.
    pub(super) syntax: TransferSyntax,
    /// Its pixel data; absent in objects without an image.
    pub(super) pixel_data: Option<PixelData>,
}

/// Says whether a file is DICOM, from its first 136 bytes or more.
pub(in crate::image) fn is_dicom(head: &[u8]) -> bool {
    dicm_at(head).is_some() || starts_with_element(head)
}

/// Returns where the elements start behind the magic bytes.
fn dicm_at(head: &[u8]) -> Option<usize> {
    let is_at = |at: usize| head.get(at..at + 4) == Some(b"DICM");
    [128, 0].into_iter().find(|&at| is_at(at)).map(|at| at + 4)
}

/// Whether the bytes start with an element of group 2 or 8, as files without magic bytes do.
fn starts_with_element(head: &[u8]) -> bool {
    let &[g0, g1, e0, e1, v0, v1, l0, l1, ..] = head else {
        return false;
    };
    let little = (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
    let big = (u16::from_be_bytes([g0, g1]), u16::from_be_bytes([e0, e1]));
    // Of all lists that begin a data set: lengths, versions, character sets, kinds, classes, dates.
    let can_be_first = |(group, element): (u16, u16)| match group {
        2 => matches!(element, 0..=3 | 0x10),
        8 => matches!(
            element,
            0 | 1 | 5 | 6 | 8 | 0x12 | 0x14 | 0x16 | 0x18 | 0x20 | 0x60
        ),
        _ => false,
    };
    match is_vr([v0, v1]) {
        true => can_be_first(little) || can_be_first(big),
        // A length that fits a first element: none of those above has more than a few characters.
        false => can_be_first(little) && u32::from_le_bytes([v0, v1, l0, l1]) <= 512,
    }
}

impl DataSet {
    /// Reads the structure of a file.
    ///
    /// # Errors
    /// [`DicomError`] for files that are damaged, too deep or too rich, and for transfer syntaxes that
    /// are not read.
    pub(super) fn read(file: Vec<u8>, max_inflated: usize) -> Result<Self, DicomError> {
        let start = dicm_at(&file).unwrap_or(0);
        let (syntax, start) = read_meta(&file, start)?;
        if syntax.encoding == Encoding::DeflatedLittle {
            let (bytes, found) = inflate::read(&file[start..], max_inflated)?;
            return Ok(Self {
                bytes,
                root: found.root,
                syntax,
                pixel_data: found.pixel_data,
            });
        }
        let encoding = written_as(&file[start..], syntax.encoding);
        let syntax = TransferSyntax { encoding, ..syntax };
        let Found { root, pixel_data } = walk(&file, start, writing(encoding), true)?;
        Ok(Self {
            bytes: file,
            root,
            syntax,
            pixel_data,
        })
    }

    /// The attributes of the data set itself.
    pub(super) fn root(&self) -> ItemView<'_> {
        ItemView::new(&self.bytes, &self.root)
    }

    /// Bytes that are held beyond the file's own.
    pub(super) fn unpacked_bytes(&self) -> u64 {
        match self.syntax.encoding {
            Encoding::DeflatedLittle => self.bytes.len() as u64,
            _ => 0,
        }
    }

    /// The bytes that places in the pixel data refer to.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn writing(encoding: Encoding) -> Writing {
    Writing {
        is_explicit: encoding != Encoding::ImplicitLittle,
        is_big_endian: encoding == Encoding::ExplicitBig,
    }
}

/// Reads group 2, whatever length it states, and returns where the data set begins.
fn read_meta(file: &[u8], start: usize) -> Result<(TransferSyntax, usize), DicomError> {
    let mut at = start;
    let mut syntax = None;
    while let Some(&[2, 0, e0, e1, v0, v1, l0, l1]) = file
        .get(at..at + 8)
        .and_then(|head| head.first_chunk::<8>())
    {
        let is_long = matches!(&[v0, v1], b"OB" | b"OW" | b"UN" | b"UT" | b"SQ");
        let (header, length) = if !is_vr([v0, v1]) {
            // Some writers leave representations out here too.
            (8, u32::from_le_bytes([v0, v1, l0, l1]))
        } else if is_long {
            let length = file
                .get(at + 8..at + 12)
                .and_then(|bytes| bytes.first_chunk::<4>());
            (12, u32::from_le_bytes(*length.ok_or(ENDS_EARLY)?))
        } else {
            (8, u32::from(u16::from_le_bytes([l0, l1])))
        };
        let value = at + header;
        let end = value
            .checked_add(length as usize)
            .filter(|&end| end <= file.len())
            .ok_or(ENDS_EARLY)?;
        if u16::from_le_bytes([e0, e1]) == TRANSFER_SYNTAX_UID.0 as u16 {
            let uid = String::from_utf8_lossy(&file[value..end]);
            let uid = uid.trim_end_matches(['\0', ' ']).trim_start();
            syntax =
                Some(TransferSyntax::of_uid(uid).map_err(|what| DicomError::Unsupported { what })?);
        }
        at = end;
    }
    let syntax = syntax.unwrap_or_else(|| syntax_without_meta(&file[at..]));
    Ok((syntax, at))
}

/// Files without group 2 come from old devices: uncompressed.
fn syntax_without_meta(elements: &[u8]) -> TransferSyntax {
    let is_explicit = elements.get(4..6).is_some_and(|vr| is_vr([vr[0], vr[1]]));
    let encoding = match (is_explicit, elements.first()) {
        (true, Some(0)) => Encoding::ExplicitBig,
        (true, _) => Encoding::ExplicitLittle,
        (false, _) => Encoding::ImplicitLittle,
    };
    TransferSyntax {
        encoding,
        compression: Compression::Native,
    }
}

/// Corrects group 2 by the first element: some writers state the other of the two little endian ways.
fn written_as(elements: &[u8], stated: Encoding) -> Encoding {
    let is_explicit = elements.get(4..6).is_some_and(|vr| is_vr([vr[0], vr[1]]));
    match stated {
        Encoding::ImplicitLittle if is_explicit => Encoding::ExplicitLittle,
        Encoding::ExplicitLittle if !is_explicit => Encoding::ImplicitLittle,
        stated => stated,
    }
}

const ENDS_EARLY: DicomError = DicomError::Damaged {
    what: "its meta information ends early",
};
