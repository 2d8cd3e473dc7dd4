//! Tests of the gate: what it keeps, and that it ends.

use super::*;

/// An element with its representation, little endian.
fn element(tag: u32, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let mut bytes = [(tag >> 16) as u16, tag as u16]
        .map(u16::to_le_bytes)
        .concat();
    bytes.extend(vr);
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(value);
    bytes
}

/// An element whose length has 32 bits.
fn long_element(tag: u32, vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = [(tag >> 16) as u16, tag as u16]
        .map(u16::to_le_bytes)
        .concat();
    bytes.extend(vr);
    bytes.extend([0, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(value);
    bytes
}

fn file(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    bytes.extend(element(0x0002_0010, b"UI", b"1.2.840.10008.1.2.1\0"));
    bytes.extend(elements.concat());
    bytes
}

fn read(file: Vec<u8>) -> Result<DataSet, DicomError> {
    DataSet::read(file, 1 << 20)
}

#[test]
fn it_keeps_what_is_read_and_nothing_else() {
    let pixels = long_element(0x7fe0_0010, b"OW", 4, &[1, 2, 3, 4]);
    let name = element(0x0010_0010, b"PN", b"Nobody^Known");
    let data_set = read(file(&[
        element(0x0008_0060, b"CS", b"CT"),
        name,
        element(0x0028_0010, b"US", &[2, 0]),
        pixels,
    ]));
    let data_set = data_set.expect("it is valid");
    assert_eq!(data_set.root().code(MODALITY), Some("CT"));
    assert_eq!(data_set.root().u16(ROWS), Ok(Some(2)));
    assert_eq!(data_set.root.elements.len(), 2, "the name is not kept");
    let Some(PixelData::Native { range, is_words }) = &data_set.pixel_data else {
        panic!("its pixels are native");
    };
    assert_eq!(data_set.bytes()[range.clone()], [1, 2, 3, 4]);
    assert!(is_words);
}

#[test]
fn nested_sequences_end_at_a_depth() {
    const UNDEFINED: u32 = u32::MAX;
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            bytes.extend(long_element(0x0009_0010, b"SQ", UNDEFINED, &[]));
            bytes.extend([0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff]);
        }
        for _ in 0..depth {
            bytes.extend([0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0]);
            bytes.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
        }
        file(&[bytes])
    };
    assert!(read(nested(32)).is_ok());
    let refused = |depth| {
        let refused = read(nested(depth)).err();
        matches!(
            refused,
            Some(DicomError::TooMany {
                what: "nested sequences",
                ..
            })
        )
    };
    assert!(refused(33));
    assert!(refused(100_000));
}

#[test]
fn a_length_beyond_the_file_is_damage() {
    for element in [
        long_element(0x0009_0010, b"OB", 4_000_000_000, &[0; 8]),
        long_element(0x5200_9230, b"SQ", 4_000_000_000, &[0; 8]),
        long_element(0x7fe0_0010, b"OW", 4_000_000_000, &[0; 8]),
    ] {
        let refused = read(file(&[element])).err();
        assert!(
            matches!(refused, Some(DicomError::Damaged { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_file_that_ends_anywhere_never_panics() {
    let whole = file(&[
        element(0x0028_0010, b"US", &[2, 0]),
        long_element(0x0028_3010, b"SQ", u32::MAX, &[]),
        vec![0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff],
        element(0x0028_3002, b"US", &[4, 0, 0, 0, 8, 0]),
        vec![0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0],
        vec![0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0],
        long_element(0x7fe0_0010, b"OW", 4, &[1, 2, 3, 4]),
    ]);
    let item = read(whole.clone()).expect("it is valid");
    let item = item
        .root()
        .first_item(VOI_LUT_SEQUENCE)
        .expect("it has one");
    assert_eq!(item.raw(LUT_DESCRIPTOR).map(|raw| raw.bytes.len()), Some(6));
    let num_with_pixels = (0..whole.len())
        .filter_map(|length| read(whole[..length].to_vec()).ok())
        .filter(|data_set| data_set.pixel_data.is_some())
        .count();
    assert_eq!(num_with_pixels, 0, "none but the whole file has its pixels");
}
