//! The frame of a message: its length (4 bytes, little-endian), its kind (1 byte) and its content.

use std::io::{self, Read};

/// Returns a message with the given content, which may come in parts.
pub(in crate::text) fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut message = Vec::with_capacity(len + 5);
    let len = u32::try_from(len).expect("messages are shorter");
    message.extend(len.to_le_bytes());
    message.push(kind);
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}

/// Reads a message's kind and content, which has at most `max_len` bytes.
///
/// # Errors
/// `UnexpectedEof` when the other end is gone, `InvalidData` for a longer message.
pub(in crate::text) fn read_message(
    from: &mut impl Read,
    max_len: usize,
) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [a, b, c, d, kind] = head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > max_len {
        return Err(malformed());
    }
    let mut content = vec![0; len];
    from.read_exact(&mut content)?;
    Ok((kind, content))
}

/// The error for bytes that are no message.
pub(in crate::text) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no message of this program")
}
