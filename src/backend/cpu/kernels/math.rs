//! Scalar functions without branches, so that loops over them vectorise.
//!
//! Approximations of `exp` and `gelu_tanh`, each within a few units in the last place.

/// Below this, `e^x` is not a normal number; it is taken as 0.
const EXP_MIN: f32 = -87.3;

/// Above this, the power of two below would exceed the exponent's range.
const EXP_MAX: f32 = 88.0;

/// `1.5 · 2^23`: adding it leaves the nearest integer in a float's low bits.
const ROUND: f32 = 12_582_912.0;

/// Computes `e^x`, with a relative error below 2e-7 from -87.3 to 88; 0 below; `e^88` above;
/// exactly 1 at 0.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Written as comparisons that keep NaN.
    let bounded = if x > EXP_MAX { EXP_MAX } else { x };
    let bounded = if bounded < EXP_MIN { EXP_MIN } else { bounded };

    // x = n·ln 2 + r with |r| ≤ ln 2 / 2, ln 2 in two parts so that r is exact.
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, bounded);
    let r = n.mul_add(2.121_944_4e-4, r);

    // e^r = 1 + r + r²·p(r): p minimises the largest relative error over the interval, 3e-9.
    let p = r.mul_add(0.001_381_454, 0.008_368_745);
    let p = r.mul_add(p, 0.041_668_39);
    let p = r.mul_add(p, 0.166_665_21);
    let p = r.mul_add(p, 0.499_999_94);
    let mantissa = (r * r).mul_add(p, r) + 1.0;

    // n is in the low bits of `shifted`; as an exponent it multiplies by 2^n.
    let power = f32::from_bits(mantissa.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < EXP_MIN { 0.0 } else { power }
}

/// Computes `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`, like `gelu_pytorch_tanh` in transformers'
/// `activations.py`.
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = SQRT_2_OVER_PI * (x * x * x).mul_add(0.044_715, x);
    // (1 + tanh u) / 2 = 1 / (1 + e^(-2u)), which avoids cancellation.
    x / (1.0 + exp(-2.0 * inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ten_millionths() {
        let mut worst = 0.0f64;
        let mut x = -87.2f32;
        while x < 88.0 {
            let truth = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - truth) / truth).abs());
            x += 0.001_37;
        }
        assert!(worst < 2e-7, "{worst:e}");
    }

    #[test]
    fn exp_keeps_its_corners() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e4), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_within_two_ten_millionths_of_its_formula() {
        let mut x = -12.0f32;
        while x < 12.0 {
            let wide = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            let truth = 0.5 * wide * (1.0 + inner.tanh());
            let error = (f64::from(gelu_tanh(x)) - truth).abs();
            assert!(
                error <= 2e-7 * truth.abs().max(1.0),
                "gelu({x}): off by {error:e}"
            );
            x += 0.000_731;
        }
        assert!(gelu_tanh(-1e6).abs() < 1e-30);
        assert_eq!(gelu_tanh(1e6), 1e6);
    }
}
