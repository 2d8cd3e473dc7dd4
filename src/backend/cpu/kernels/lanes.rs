//! Eight `f32` at a time, for loops that the compiler does not vectorise well.
//!
//! Selects the instructions at run time. A kernel is written once over [`Lanes`] and is compiled
//! for AVX2 + FMA and for the target's baseline; loops that the compiler vectorises only need
//! [`vectorised`].

/// Eight floats in registers and the operations that matmuls need.
pub(super) trait Lanes: Copy {
    /// Eight floats.
    type V: Copy;

    fn splat(self, value: f32) -> Self::V;
    fn load(self, from: &[f32; 8]) -> Self::V;
    /// Widens bfloat16, which is exact.
    fn widen(self, from: &[u16; 8]) -> Self::V;
    fn store(self, value: Self::V, to: &mut [f32; 8]);
    /// `a · b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// A computation that [`dispatch`] compiles once per instruction set.
pub(super) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, and so must everything that it calls in its inner loops: code
    /// that is not inlined is compiled for the baseline.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs `kernel` with the widest instructions that this machine supports.
pub(super) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(
            simd,
            #[inline(always)]
            || kernel.run(x86::Avx2(simd)),
        );
    }
    kernel.run(Plain)
}

/// Runs a closure with plain loops, which the compiler vectorises for this machine.
pub(super) fn vectorised<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}

/// Arrays of floats: compiled to vectors on NEON, and the fallback elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Lanes for Plain {
    type V = [f32; 8];

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> [f32; 8] {
        *from
    }

    #[inline(always)]
    fn widen(self, from: &[u16; 8]) -> [f32; 8] {
        from.map(|half| f32::from_bits(u32::from(half) << 16))
    }

    #[inline(always)]
    fn store(self, value: [f32; 8], to: &mut [f32; 8]) {
        *to = value;
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
        } else {
            // Without hardware support, a fused multiply-add is a function call.
            std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m128i, __m256};

    use pulp::cast;
    use pulp::x86::V3;

    use super::Lanes;

    /// Proof that the machine has AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(pub(super) V3);

    impl Lanes for Avx2 {
        type V = __m256;

        #[inline(always)]
        fn splat(self, value: f32) -> __m256 {
            self.0.avx._mm256_set1_ps(value)
        }

        #[inline(always)]
        fn load(self, from: &[f32; 8]) -> __m256 {
            cast(*from)
        }

        #[inline(always)]
        fn widen(self, from: &[u16; 8]) -> __m256 {
            let halves: __m128i = cast(*from);
            let words = self.0.avx2._mm256_cvtepu16_epi32(halves);
            cast(self.0.avx2._mm256_slli_epi32::<16>(words))
        }

        #[inline(always)]
        fn store(self, value: __m256, to: &mut [f32; 8]) {
            *to = cast(value);
        }

        #[inline(always)]
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            self.0.fma._mm256_fmadd_ps(a, b, c)
        }
    }
}
