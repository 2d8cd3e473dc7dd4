//! Samples of 16 bits that use a small part of their range, such as an X-ray of 12 bits.
//!
//! Pillow shows such an image as it is stored, which is nearly black. Here its range becomes that
//! of as many bits as its brightest sample needs; a full range is left as it is.

/// Samples that need more bits than these are bright enough: a quarter of white.
const MOST_BITS: usize = 14;
/// Fewer are not stretched, so that an image of 8 bits in 16 looks as in 8.
const LEAST_BITS: usize = 8;

/// Stretches 16-bit samples in the machine's byte order to the full range, in place. Each pixel has
/// `channels` samples, of which the first `num_colors` are stretched, all by one factor, so that
/// hues stay. Returns whether anything was stretched.
pub(super) fn use_full_range(bytes: &mut [u8], channels: usize, num_colors: usize) -> bool {
    let Some(num_bits) = used_bits(bytes, channels, num_colors) else {
        return false;
    };
    let most = (1u32 << num_bits) - 1;
    for pixel in bytes.as_chunks_mut::<2>().0.chunks_exact_mut(channels) {
        for sample in &mut pixel[..num_colors] {
            let level = u32::from(u16::from_ne_bytes(*sample)).min(most);
            let stretched = (level * 65_535 + most / 2) / most;
            *sample = (stretched as u16).to_ne_bytes();
        }
    }
    true
}

/// Returns the number of bits that the samples should be taken to have, if not all 16.
///
/// A mark that is written into an image is white however many bits the image has: at most one
/// sample in a hundred, nearly all of one level far above the others, does not count.
fn used_bits(bytes: &[u8], channels: usize, num_colors: usize) -> Option<usize> {
    /// Bits by which a mark is brighter: 16 times.
    const FAR: usize = 4;
    let mut num_with = [0usize; 17];
    let (mut highest, mut num_highest) = (0, 0);
    for pixel in bytes.as_chunks::<2>().0.chunks_exact(channels) {
        for sample in &pixel[..num_colors] {
            let level = u16::from_ne_bytes(*sample);
            num_with[16 - level.leading_zeros() as usize] += 1;
            if level > highest {
                (highest, num_highest) = (level, 0);
            }
            num_highest += usize::from(level == highest);
        }
    }
    let all = 16 - highest.leading_zeros() as usize;
    if all == 0 {
        return None;
    }
    // Black is not counted: it may be what surrounds a small bright object.
    let num_lit: usize = num_with[1..].iter().sum();
    let mut num_brighter = num_lit;
    let most = (1..=all).find(|&num_bits| {
        num_brighter -= num_with[num_bits];
        num_brighter * 100 <= num_lit
    });
    let most = most.unwrap_or(all);
    let num_marks: usize = num_with[most + 1..].iter().sum();
    let is_marked = most + FAR <= all && num_highest * 10 >= num_marks * 9;
    let num_bits = if is_marked { most } else { all };
    (num_bits <= MOST_BITS).then_some(num_bits.max(LEAST_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretched(levels: &[u16], channels: usize, num_colors: usize) -> Vec<u16> {
        let mut bytes: Vec<u8> = levels.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let is_stretched = use_full_range(&mut bytes, channels, num_colors);
        let words = bytes.as_chunks::<2>().0.iter();
        let words: Vec<u16> = words.map(|word| u16::from_ne_bytes(*word)).collect();
        assert!(is_stretched || words == levels);
        words
    }

    #[test]
    fn few_bits_become_all() {
        for (levels, expected) in [
            (vec![0, 2048, 4095], vec![0, 32_776, 65_535]),
            // The brightest needs 12 bits, though it is not the brightest of 12.
            (vec![0, 1024, 3000], vec![0, 16_388, 48_011]),
            (vec![0, 8191, 16_383], vec![0, 32_765, 65_535]),
            (vec![0, 8191, 16_384], vec![0, 8191, 16_384]),
            (vec![0, 1, 255], vec![0, 257, 65_535]),
            (vec![0, 1, 3], vec![0, 257, 771]),
            (vec![0, 0], vec![0, 0]),
            (vec![], vec![]),
        ] {
            assert_eq!(stretched(&levels, 1, 1), expected, "{levels:?}");
        }
    }

    #[test]
    fn alpha_stays_and_hues_stay() {
        assert_eq!(stretched(&[4095, 7], 2, 1), [65_535, 7]);
        let pixels = [4095, 0, 1024, 9, 16, 0, 0, 65_535];
        assert_eq!(
            stretched(&pixels, 4, 3),
            [65_535, 0, 16_388, 9, 256, 0, 0, 65_535]
        );
    }

    #[test]
    fn a_mark_does_not_count_and_a_bright_object_does() {
        let film: Vec<u16> = (0..2000).map(|idx| 1 + idx * 2).collect();
        let marked = [&film[..], &[65_535; 10]].concat();
        let shown = stretched(&marked, 1, 1);
        assert_eq!(shown[..2000], stretched(&film, 1, 1));
        assert_eq!(shown[2000..], [65_535; 10]);
        let object: Vec<u16> = (0..10).map(|idx| 50_000 + idx * 1000).collect();
        let with_object = [&film[..], &object].concat();
        assert_eq!(stretched(&with_object, 1, 1), with_object);
        let many = [&film[..], &[65_535; 100]].concat();
        assert_eq!(stretched(&many, 1, 1), many);
        let on_black = [&[0; 5000][..], &[65_535; 10]].concat();
        assert_eq!(stretched(&on_black, 1, 1), on_black);
    }
}
