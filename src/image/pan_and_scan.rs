//! Crops of an image that is far from square, as transformers' `Gemma3ImageProcessor` makes them.
//!
//! Follows `pan_and_scan_batched` of `image_processing_gemma3.py`: the image is cut across its
//! longer side into strips of one length, of which the last may be shorter.

use crate::core::PanAndScan;

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CropBox {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Returns the crops of an image of `width × height` pixels, from left to right or from top to
/// bottom; none for an image that is close to square or too small.
pub(super) fn crops((width, height): (usize, usize), settings: &PanAndScan) -> Vec<CropBox> {
    let (long, short) = (width.max(height), width.min(height));
    if short == 0 {
        return Vec::new();
    }
    let ratio = long as f64 / short as f64;
    if ratio < settings.min_ratio_to_activate {
        return Vec::new();
    }
    let (min_size, max_num) = (
        settings.min_crop_size.max(1) as usize,
        settings.max_num_crops.max(1) as usize,
    );
    let num = ((ratio + 0.5) as usize).min(long / min_size);
    let num = num.max(2).min(max_num);
    let len = long.div_ceil(num);
    if len.min(short) < min_size {
        return Vec::new();
    }
    // Of a few pixels the last strips may have none, which the reference would fail at.
    let starts = (0..num)
        .map(|idx| idx * len)
        .take_while(|start| *start < long);
    let crop = |start: usize| {
        let len = len.min(long - start);
        match width >= height {
            true => CropBox {
                left: start,
                top: 0,
                width: len,
                height,
            },
            false => CropBox {
                left: 0,
                top: start,
                width,
                height: len,
            },
        }
    };
    starts.map(crop).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn crops_are_the_references() {
        let expected = include_str!("../../tests/golden/images/expected.json");
        let expected: Value = serde_json::from_str(expected).expect("it is JSON");
        let cases = expected["pan_and_scan"].as_array().expect("a list");
        assert!(cases.len() > 10);
        for case in cases {
            let side = |name: &str| case[name].as_u64().expect("a number") as usize;
            let found = crops((side("width"), side("height")), &PanAndScan::default());
            let found: Vec<Value> = found
                .into_iter()
                .map(|crop| serde_json::json!([crop.left, crop.top, crop.width, crop.height]))
                .collect();
            assert_eq!(Value::from(found), case["crops"], "{case}");
        }
    }

    #[test]
    fn settings_move_the_limits() {
        let settings = PanAndScan {
            min_crop_size: 1,
            max_num_crops: 9,
            min_ratio_to_activate: 0.0,
        };
        let lens = |size| {
            let crops = crops(size, &settings);
            let len = |crop: &CropBox| (crop.width, crop.height);
            crops.iter().map(len).collect::<Vec<_>>()
        };
        assert_eq!(lens((3, 3)), [(2, 3), (1, 3)]);
        assert_eq!(lens((1, 4)), [(1, 1); 4]);
        assert_eq!(
            lens((11, 2)),
            [(2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (1, 2)]
        );
        assert_eq!(lens((9, 2)), [(2, 2), (2, 2), (2, 2), (2, 2), (1, 2)]);
        assert_eq!(lens((1, 1)), [(1, 1)]);
        // Four strips of two pixels would need seven.
        let four = PanAndScan {
            max_num_crops: 4,
            ..settings
        };
        assert_eq!(crops((5, 1), &four).len(), 3);
        let one = PanAndScan {
            max_num_crops: 1,
            ..settings
        };
        assert_eq!(crops((8, 2), &one).len(), 1);
    }
}
