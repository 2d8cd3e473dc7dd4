//! What a scan has learnt about errors at places like the one that is decoded (T.87 annex A).

use super::parameters::Parameters;

/// Regular contexts: those of three gradients of -4 to 4, of which the first that is not 0 is positive.
pub(super) const NUM_REGULAR: usize = 365;

/// Statistics of one context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// Sum of the errors' sizes.
    size: i32,
    /// Sum of the errors, kept small by `correction`.
    bias: i32,
    /// What is added to predictions.
    pub(super) correction: i32,
    count: i32,
}

impl Context {
    /// Knows nothing yet.
    pub(super) fn new(parameters: &Parameters) -> Self {
        Self {
            size: first_size(parameters),
            bias: 0,
            correction: 0,
            count: 1,
        }
    }

    /// Bits of an error that are written as they are.
    pub(super) fn low_bits(&self) -> u32 {
        low_bits(self.count, self.size)
    }

    /// Returns the error of a code: errors of both signs in turn, the likelier first.
    pub(super) fn error_of(&self, code: u32, low_bits: u32, near: i32) -> i32 {
        let is_turned = near == 0 && low_bits == 0 && 2 * self.bias <= -self.count;
        let half = (code >> 1) as i32;
        match (code & 1 == 1) == is_turned {
            true => half,
            false => -half - 1,
        }
    }

    /// Learns from an error.
    pub(super) fn learn(&mut self, error: i32, parameters: &Parameters) {
        self.bias += error * parameters.step;
        self.size += error.abs();
        if self.count == parameters.reset {
            self.size >>= 1;
            self.bias >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
        if self.bias <= -self.count {
            self.bias = (self.bias + self.count).max(1 - self.count);
            self.correction = (self.correction - 1).max(-128);
        } else if self.bias > 0 {
            self.bias = (self.bias - self.count).min(0);
            self.correction = (self.correction + 1).min(127);
        }
    }
}

/// Statistics of samples that end a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunContext {
    size: i32,
    count: i32,
    num_negative: i32,
    /// 1 where the samples to the left and above are alike, else 0.
    kind: i32,
}

impl RunContext {
    /// Knows nothing yet.
    pub(super) fn new(parameters: &Parameters, kind: i32) -> Self {
        Self {
            size: first_size(parameters),
            count: 1,
            num_negative: 0,
            kind,
        }
    }

    /// Bits of an error that are written as they are.
    pub(super) fn low_bits(&self) -> u32 {
        low_bits(self.count, self.size + (self.count >> 1) * self.kind)
    }

    /// Returns the error of a code and learns from it.
    pub(super) fn error_of(&mut self, code: u32, low_bits: u32, parameters: &Parameters) -> i32 {
        let doubled = code as i32 + self.kind;
        let is_odd = doubled & 1 == 1;
        let magnitude = (doubled + 1) >> 1;
        let is_negative_odd = low_bits != 0 || 2 * self.num_negative >= self.count;
        let error = match is_odd == is_negative_odd {
            true => -magnitude,
            false => magnitude,
        };
        self.num_negative += i32::from(error < 0);
        self.size += (code as i32 + 1 - self.kind) >> 1;
        if self.count == parameters.reset {
            self.size >>= 1;
            self.count >>= 1;
            self.num_negative >>= 1;
        }
        self.count += 1;
        error
    }
}

fn first_size(parameters: &Parameters) -> i32 {
    ((parameters.range + 32) >> 6).max(2)
}

fn low_bits(count: i32, size: i32) -> u32 {
    let mut bits = 0;
    while count << bits < size {
        bits += 1;
    }
    bits
}
