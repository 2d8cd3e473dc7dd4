//! The protocol between the server and a template's process. Both ends are the same binary, so
//! there is no version.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufWriter, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::text::child_process::{malformed, message, read_message};
use crate::text::jinja::MAX_RENDERED_BYTES;
use crate::text::rendering_failure::RenderingFailure;

/// The first thing that a process is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TemplateToCompile {
    pub(super) source: String,
    /// Variables of every rendering.
    pub(super) globals: BTreeMap<String, String>,
}

/// What a process answers: a text, which is empty where it only says that it is ready.
pub(super) type Reply = Result<String, RenderingFailure>;

const TEXT: u8 = 0;
const RAISED: u8 = 1;
const TOO_MUCH: u8 = 2;
const TOO_LONG: u8 = 3;
const OTHER: u8 = 4;

/// Writes an object as JSON, without a second copy of it: a conversation may be long.
pub(super) fn write_object(to: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    let mut to = BufWriter::new(to);
    serde_json::to_writer(&mut to, object)?;
    to.flush()
}

/// Reads an object, up to its closing brace and no further.
///
/// # Errors
/// `UnexpectedEof` when the other end is gone.
pub(super) fn read_object<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    Ok(T::deserialize(&mut serde_json::Deserializer::from_reader(
        from,
    ))?)
}

pub(super) fn reply_bytes(reply: &Reply) -> Vec<u8> {
    let (kind, text) = match reply {
        Ok(text) => (TEXT, text.as_str()),
        Err(RenderingFailure::Raised(message)) => (RAISED, message.as_str()),
        Err(RenderingFailure::TooMuch) => (TOO_MUCH, ""),
        Err(RenderingFailure::TooLong) => (TOO_LONG, ""),
        Err(RenderingFailure::Other(cause)) => (OTHER, cause.as_str()),
        Err(RenderingFailure::TooLarge | RenderingFailure::NoProcess(_)) => {
            unreachable!("these are what the server finds")
        }
    };
    if text.len() > MAX_RENDERED_BYTES {
        return message(TOO_MUCH, &[]);
    }
    message(kind, &[text.as_bytes()])
}

/// # Errors
/// `UnexpectedEof` when the process is gone, `InvalidData` for an invalid reply.
pub(super) fn read_reply(from: &mut impl Read) -> io::Result<Reply> {
    let (kind, text) = read_message(from, MAX_RENDERED_BYTES)?;
    let text = String::from_utf8(text).map_err(|_| malformed())?;
    Ok(match kind {
        TEXT => Ok(text),
        RAISED => Err(RenderingFailure::Raised(text)),
        TOO_MUCH => Err(RenderingFailure::TooMuch),
        TOO_LONG => Err(RenderingFailure::TooLong),
        OTHER => Err(RenderingFailure::Other(text)),
        _ => return Err(malformed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_as_they_were_written() {
        let replies = [
            Ok(String::new()),
            Ok("<bos>ä".to_owned()),
            Err(RenderingFailure::Raised("no".to_owned())),
            Err(RenderingFailure::TooMuch),
            Err(RenderingFailure::TooLong),
            Err(RenderingFailure::Other("why".to_owned())),
        ];
        let bytes: Vec<u8> = replies.iter().flat_map(reply_bytes).collect();
        let mut bytes = bytes.as_slice();
        for reply in replies {
            assert_eq!(read_reply(&mut bytes).unwrap(), reply);
        }
        assert!(bytes.is_empty());
        let long = Err(RenderingFailure::Raised("a".repeat(MAX_RENDERED_BYTES + 1)));
        let read = read_reply(&mut reply_bytes(&long).as_slice()).unwrap();
        assert_eq!(read, Err(RenderingFailure::TooMuch));
        for bytes in [&[0, 0, 0, 0, 9][..], &[1, 0, 0, 0, 0, 0xff], &[5]] {
            assert!(read_reply(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn objects_follow_each_other() {
        let template = |source: &str| TemplateToCompile {
            source: source.to_owned(),
            globals: [("bos_token".to_owned(), "<bos>".to_owned())].into(),
        };
        let mut bytes = Vec::new();
        for source in ["{{ a }}", "}\n\""] {
            write_object(&mut bytes, &template(source)).unwrap();
        }
        let mut bytes = bytes.as_slice();
        for source in ["{{ a }}", "}\n\""] {
            let read: TemplateToCompile = read_object(&mut bytes).unwrap();
            assert_eq!(read, template(source));
        }
        let end = read_object::<TemplateToCompile>(&mut bytes).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
