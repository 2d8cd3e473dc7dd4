//! Cooperative cancellation of image decoding.

use crate::error::ImageError;

/// Checked between rows: decoding ends there after cancellation.
#[derive(Clone, Copy)]
pub struct Cancellation<'a>(&'a dyn Fn() -> bool);

impl<'a> Cancellation<'a> {
    /// Cancels once `is_cancelled` returns true; it is called often and must be quick.
    pub fn when(is_cancelled: &'a dyn Fn() -> bool) -> Self {
        Self(is_cancelled)
    }

    /// # Errors
    /// [`ImageError::Abandoned`] after cancellation.
    pub(super) fn check(self) -> Result<(), ImageError> {
        if (self.0)() {
            Err(ImageError::Abandoned)
        } else {
            Ok(())
        }
    }
}

impl Cancellation<'static> {
    /// Is never cancelled.
    pub const NEVER: Self = Self(&|| false);
}
