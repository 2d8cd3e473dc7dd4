//! Colour differences to red, green and blue.

/// Converts pixels of brightness and two colour differences (PS3.3 section C.7.6.3.1.2, `YBR_FULL`).
pub(super) fn ybr_to_rgb(pixels: &mut [u8]) {
    let clip = |level: f32| (level + 0.5).floor().clamp(0.0, 255.0) as u8;
    for pixel in pixels.as_chunks_mut::<3>().0 {
        let [y, blue, red] = pixel.map(f32::from);
        let (blue, red) = (blue - 128.0, red - 128.0);
        *pixel = [
            clip(y + 1.402 * red),
            clip(y - (0.114 * 1.772 / 0.587) * blue - (0.299 * 1.402 / 0.587) * red),
            clip(y + 1.772 * blue),
        ];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same in integers: thousandths, rounded half up as the reference does.
    fn exact([y, blue, red]: [u8; 3]) -> [u8; 3] {
        let (y, blue, red) = (i64::from(y), i64::from(blue) - 128, i64::from(red) - 128);
        let round = |numerator: i64, denominator: i64| {
            (2 * numerator + denominator)
                .div_euclid(2 * denominator)
                .clamp(0, 255) as u8
        };
        [
            round(1000 * y + 1402 * red, 1000),
            round(587_000 * y - 202_008 * blue - 419_198 * red, 587_000),
            round(1000 * y + 1772 * blue, 1000),
        ]
    }

    #[test]
    fn every_color_is_converted_to_the_nearest() {
        for y in [0, 1, 77, 128, 200, 254, 255] {
            for blue in 0..=255 {
                for red in 0..=255 {
                    let mut pixel = [y, blue, red];
                    ybr_to_rgb(&mut pixel);
                    assert_eq!(pixel, exact([y, blue, red]), "{:?}", [y, blue, red]);
                }
            }
        }
    }
}
