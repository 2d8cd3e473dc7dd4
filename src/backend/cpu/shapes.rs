//! Checks that the operands of an operation fit each other, so that a mistake in a model gives a
//! message in place of a panic within a kernel.

use super::{CpuLinear, CpuStep, Rows};
use crate::backend::linear::Linear;
use crate::error::{Error, Result};

/// Checks that `x` is `(num_rows, width)`.
pub(super) fn check(what: &str, x: &Rows, num_rows: usize, width: usize) -> Result<()> {
    let found = (x.num_rows(), x.width);
    if found == (num_rows, width) {
        return Ok(());
    }
    Err(Error::Backend(format!(
        "{what} is {found:?}; it must be {:?}",
        (num_rows, width)
    )))
}

/// Checks that `x` is one row of `width` numbers.
pub(super) fn check_vector(what: &str, x: &Rows, width: usize) -> Result<()> {
    check(what, x, 1, width)
}

/// Checks that `x` has `width` columns, and any number of rows.
pub(super) fn check_width(what: &str, x: &Rows, width: usize) -> Result<()> {
    check(what, x, x.num_rows(), width)
}

/// Checks that `x` can be multiplied by `weight`.
pub(super) fn check_matmul(x: &Rows, weight: &CpuLinear) -> Result<()> {
    let spec = weight.spec();
    if x.width == spec.num_in {
        return Ok(());
    }
    Err(Error::Backend(format!(
        "{:?} cannot be multiplied by a {:?} weight of {} inputs and {} outputs",
        (x.num_rows(), x.width),
        spec.role,
        spec.num_in,
        spec.num_out
    )))
}

/// Checks that this range lies within the rows of `x`.
pub(super) fn check_range(x: &Rows, rows: &std::ops::Range<usize>) -> Result<()> {
    if rows.start <= rows.end && rows.end <= x.num_rows() {
        return Ok(());
    }
    Err(Error::Backend(format!(
        "rows {rows:?} of {:?} do not exist",
        (x.num_rows(), x.width)
    )))
}

/// Checks that every row of `x` may belong to the step.
pub(super) fn check_step(step: &CpuStep, x: &Rows) -> Result<()> {
    let num_tokens = step.num_tokens();
    if x.num_rows() <= num_tokens {
        return Ok(());
    }
    Err(Error::Backend(format!(
        "{:?} has more rows than its step of {num_tokens} tokens",
        (x.num_rows(), x.width)
    )))
}
