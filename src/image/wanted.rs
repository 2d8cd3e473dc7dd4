//! Cooperative cancellation of image decoding.

use crate::error::ImageError;

/// Checked between rows: decoding of an image that is no longer wanted ends there.
#[derive(Clone, Copy)]
pub struct Wanted<'a>(&'a dyn Fn() -> bool);

impl<'a> Wanted<'a> {
    /// Decoding continues for as long as `is_wanted` returns true; it is called often and must be
    /// quick.
    pub fn while_true(is_wanted: &'a dyn Fn() -> bool) -> Self {
        Self(is_wanted)
    }

    /// # Errors
    /// [`ImageError::Abandoned`] after cancellation.
    pub(super) fn check(self) -> Result<(), ImageError> {
        if (self.0)() {
            Ok(())
        } else {
            Err(ImageError::Abandoned)
        }
    }
}

impl Wanted<'static> {
    /// Is never cancelled.
    pub const ALWAYS: Self = Self(&|| true);
}
