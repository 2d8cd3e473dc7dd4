//! Values of attributes, read from the file's bytes (PS3.5 section 6.2).

use std::str;

use super::tag::Tag;
use super::{Item, Value};
use crate::error::DicomError;

/// The attributes of one item, with the bytes that they are in.
#[derive(Clone, Copy)]
pub(in crate::image::dicom) struct ItemView<'a> {
    bytes: &'a [u8],
    item: &'a Item,
}

/// A value's bytes in the order in which they were written.
#[derive(Clone, Copy)]
pub(in crate::image::dicom) struct RawValue<'a> {
    pub(in crate::image::dicom) bytes: &'a [u8],
    pub(in crate::image::dicom) is_big_endian: bool,
    /// Whether the file says that numbers are signed (`SS`) or not; `None` if it says nothing.
    pub(in crate::image::dicom) is_signed: Option<bool>,
}

impl<'a> ItemView<'a> {
    pub(super) fn new(bytes: &'a [u8], item: &'a Item) -> Self {
        Self { bytes, item }
    }

    fn value(&self, tag: Tag) -> Option<&'a Value> {
        let found = self.item.elements.iter().find(|element| element.tag == tag);
        found.map(|element| &element.value)
    }

    /// Returns a value that is there and not empty.
    pub(in crate::image::dicom) fn raw(&self, tag: Tag) -> Option<RawValue<'a>> {
        match self.value(tag)? {
            Value::Bytes { range, .. } if range.is_empty() => None,
            &Value::Bytes {
                ref range,
                is_big_endian,
                is_signed,
            } => Some(RawValue {
                bytes: &self.bytes[range.clone()],
                is_big_endian,
                is_signed,
            }),
            Value::Items(_) => None,
        }
    }

    /// Returns the items of a sequence; none if it is absent.
    pub(in crate::image::dicom) fn items(
        &self,
        tag: Tag,
    ) -> impl ExactSizeIterator<Item = ItemView<'a>> + use<'a> {
        let bytes = self.bytes;
        let items = match self.value(tag) {
            Some(Value::Items(items)) => items.as_slice(),
            _ => &[],
        };
        items.iter().map(move |item| ItemView { bytes, item })
    }

    /// Returns the first item of a sequence.
    pub(in crate::image::dicom) fn first_item(&self, tag: Tag) -> Option<ItemView<'a>> {
        self.items(tag).next()
    }

    /// Returns a number of 16 bits, the first of several.
    ///
    /// # Errors
    /// [`DicomError::Damaged`] for a value of one byte.
    pub(in crate::image::dicom) fn u16(&self, tag: Tag) -> Result<Option<u16>, DicomError> {
        let Some(raw) = self.raw(tag) else {
            return Ok(None);
        };
        let first = raw.words().next();
        first.map(Some).ok_or(UNREADABLE_NUMBER)
    }

    /// Returns the parts of a text between backslashes, without their padding; none if it is absent
    /// or not ASCII, as all codes are.
    pub(in crate::image::dicom) fn codes(
        &self,
        tag: Tag,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let text = self.raw(tag).and_then(|raw| str::from_utf8(raw.bytes).ok());
        let padding = [' ', '\0'];
        text.into_iter()
            .flat_map(move |text| text.split('\\').map(move |part| part.trim_matches(padding)))
    }

    /// Returns the first part of a text, if it is not empty.
    pub(in crate::image::dicom) fn code(&self, tag: Tag) -> Option<&'a str> {
        self.codes(tag).next().filter(|code| !code.is_empty())
    }

    /// Returns the numbers of a text, in order.
    ///
    /// # Errors
    /// [`DicomError::Damaged`] for what is not a finite number.
    pub(in crate::image::dicom) fn decimals(&self, tag: Tag) -> Result<Vec<f64>, DicomError> {
        let parts = self.codes(tag).filter(|part| !part.is_empty());
        parts
            .map(|part| {
                part.parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite())
                    .ok_or(UNREADABLE_NUMBER)
            })
            .collect()
    }

    /// Returns the first number of a text.
    ///
    /// # Errors
    /// As [`Self::decimals`].
    pub(in crate::image::dicom) fn decimal(&self, tag: Tag) -> Result<Option<f64>, DicomError> {
        Ok(self.decimals(tag)?.first().copied())
    }
}

impl<'a> RawValue<'a> {
    /// Words of 16 bits; a byte that is left over is dropped.
    pub(in crate::image::dicom) fn words(self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        let Self {
            bytes,
            is_big_endian,
            ..
        } = self;
        bytes.chunks_exact(2).map(move |word| match is_big_endian {
            true => u16::from_be_bytes([word[0], word[1]]),
            false => u16::from_le_bytes([word[0], word[1]]),
        })
    }

    /// Words of 64 bits, of the tables of offsets.
    pub(in crate::image::dicom) fn long_words(
        self,
    ) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let Self {
            bytes,
            is_big_endian,
            ..
        } = self;
        bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(move |word| match is_big_endian {
                true => u64::from_be_bytes(*word),
                false => u64::from_le_bytes(*word),
            })
    }
}

const UNREADABLE_NUMBER: DicomError = DicomError::Damaged {
    what: "a number in its description cannot be read",
};
