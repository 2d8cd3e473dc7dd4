//! What a template writes, up to a limit.

use std::io::{self, Write};

/// Bytes of a prompt: four for each of 8 million tokens, far more than any model takes.
pub(super) const MAX_RENDERED_BYTES: usize = 32 << 20;

/// Takes a template's output; too much of it is an error.
#[derive(Debug, Default)]
pub(super) struct Rendered(Vec<u8>);

impl Rendered {
    /// The text, for templates write nothing else.
    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.0)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

impl Write for Rendered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            return Err(io::Error::other("too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
