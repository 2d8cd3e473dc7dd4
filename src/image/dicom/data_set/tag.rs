//! The attributes that are read. All others are walked over: names, dates and identifiers of
//! patients never enter our structures.

/// An attribute's tag: its group in the upper 16 bits, its element in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::image::dicom) struct Tag(pub(in crate::image::dicom) u32);

impl Tag {
    pub(super) fn group(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// What a kept attribute's value is, where the file does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value without parts.
    Value,
    /// Items with attributes of their own.
    Sequence,
}

/// Starts an item of a sequence or a fragment of pixel data.
pub(super) const ITEM: Tag = Tag(0xfffe_e000);
/// Ends an item of undefined length.
pub(super) const ITEM_END: Tag = Tag(0xfffe_e00d);
/// Ends a sequence of undefined length.
pub(super) const SEQUENCE_END: Tag = Tag(0xfffe_e0dd);

/// Defines the constants and the table of kept attributes, which is in ascending order.
macro_rules! kept {
    ($($name:ident = $tag:literal $kind:ident;)*) => {
        $(pub(in crate::image::dicom) const $name: Tag = Tag($tag);)*
        const KEPT: &[(Tag, Kind)] = &[$((Tag($tag), Kind::$kind)),*];
    };
}

kept! {
    TRANSFER_SYNTAX_UID = 0x0002_0010 Value;
    MODALITY = 0x0008_0060 Value;
    SAMPLES_PER_PIXEL = 0x0028_0002 Value;
    PHOTOMETRIC_INTERPRETATION = 0x0028_0004 Value;
    PLANAR_CONFIGURATION = 0x0028_0006 Value;
    NUMBER_OF_FRAMES = 0x0028_0008 Value;
    ROWS = 0x0028_0010 Value;
    COLUMNS = 0x0028_0011 Value;
    BITS_ALLOCATED = 0x0028_0100 Value;
    BITS_STORED = 0x0028_0101 Value;
    HIGH_BIT = 0x0028_0102 Value;
    PIXEL_REPRESENTATION = 0x0028_0103 Value;
    BURNED_IN_ANNOTATION = 0x0028_0301 Value;
    WINDOW_CENTER = 0x0028_1050 Value;
    WINDOW_WIDTH = 0x0028_1051 Value;
    RESCALE_INTERCEPT = 0x0028_1052 Value;
    RESCALE_SLOPE = 0x0028_1053 Value;
    VOI_LUT_FUNCTION = 0x0028_1056 Value;
    RED_PALETTE_DESCRIPTOR = 0x0028_1101 Value;
    GREEN_PALETTE_DESCRIPTOR = 0x0028_1102 Value;
    BLUE_PALETTE_DESCRIPTOR = 0x0028_1103 Value;
    RED_PALETTE = 0x0028_1201 Value;
    GREEN_PALETTE = 0x0028_1202 Value;
    BLUE_PALETTE = 0x0028_1203 Value;
    SEGMENTED_RED_PALETTE = 0x0028_1221 Value;
    SEGMENTED_GREEN_PALETTE = 0x0028_1222 Value;
    SEGMENTED_BLUE_PALETTE = 0x0028_1223 Value;
    LOSSY_IMAGE_COMPRESSION = 0x0028_2110 Value;
    MODALITY_LUT_SEQUENCE = 0x0028_3000 Sequence;
    LUT_DESCRIPTOR = 0x0028_3002 Value;
    LUT_DATA = 0x0028_3006 Value;
    VOI_LUT_SEQUENCE = 0x0028_3010 Sequence;
    FRAME_VOI_LUT_SEQUENCE = 0x0028_9132 Sequence;
    PIXEL_VALUE_TRANSFORMATION_SEQUENCE = 0x0028_9145 Sequence;
    PRESENTATION_LUT_SHAPE = 0x2050_0020 Value;
    SHARED_FUNCTIONAL_GROUPS_SEQUENCE = 0x5200_9229 Sequence;
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE = 0x5200_9230 Sequence;
    EXTENDED_OFFSET_TABLE = 0x7fe0_0001 Value;
    EXTENDED_OFFSET_TABLE_LENGTHS = 0x7fe0_0002 Value;
    FLOAT_PIXEL_DATA = 0x7fe0_0008 Value;
    DOUBLE_FLOAT_PIXEL_DATA = 0x7fe0_0009 Value;
    PIXEL_DATA = 0x7fe0_0010 Value;
}

/// Returns the kind of an attribute that is kept.
pub(super) fn kind_of(tag: Tag) -> Option<Kind> {
    let place = KEPT.binary_search_by_key(&tag, |&(kept, _)| kept).ok()?;
    Some(KEPT[place].1)
}
