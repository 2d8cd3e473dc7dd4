//! Whether somebody still waits for an image.

use crate::error::ImageError;

/// Asked between rows: work on an image that nobody waits for any more ends there.
#[derive(Clone, Copy)]
pub struct Wanted<'a>(&'a dyn Fn() -> bool);

impl<'a> Wanted<'a> {
    /// The image is wanted for as long as `is_wanted` says so; it is asked often and must be
    /// quick.
    pub fn while_true(is_wanted: &'a dyn Fn() -> bool) -> Self {
        Self(is_wanted)
    }

    /// # Errors
    /// [`ImageError::Abandoned`] once the image is not wanted.
    pub(super) fn check(self) -> Result<(), ImageError> {
        if (self.0)() {
            Ok(())
        } else {
            Err(ImageError::Abandoned)
        }
    }
}

impl Wanted<'static> {
    /// The image is wanted to the end.
    pub const ALWAYS: Self = Self(&|| true);
}
