//! The protocol between the server and the grammar processes.
//!
//! Numbers are little-endian. Both ends are the same binary, so there is no version.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::core::{TokenId, TokenMask, Urgency};
use crate::text::child_process::{malformed, message, read_message};
use crate::text::grammar::compiler::GrammarError;
use crate::text::grammar::source::GrammarSource;
use crate::text::grammar::vocabulary::GrammarVocabulary;

/// Maximum message length. The longest is a vocabulary, which the tokenizer limits to a few
/// megabytes.
const MAX_MESSAGE: usize = 256 << 20;

/// A message from the server to a worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// Compile the worker's one grammar.
    Compile(GrammarSource),
    /// Compute the next mask of an answer. An unknown answer is new.
    Mask {
        answer: u64,
        /// Number of tokens that the answer may still have.
        num_left: u64,
        urgency: Urgency,
        sampled: Vec<TokenId>,
    },
    /// An answer has ended.
    Forget { answer: u64 },
}

/// A message from a worker to the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The grammar is compiled.
    Compiled {
        /// Memory that the worker does not share with others, in bytes.
        private_bytes: u64,
        /// Number of tokens of the shortest answer, as far as it is known.
        least_tokens: u64,
    },
    /// The grammar cannot be compiled; the worker ends.
    Refused(GrammarError),
    /// A mask was computed.
    Mask {
        answer: u64,
        /// CPU time that it took.
        cpu: Duration,
        mask: TokenMask,
    },
    /// An answer cannot continue.
    Ended {
        answer: u64,
        num_tokens: usize,
        reason: String,
    },
}

impl Order {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Compile(source) => {
                let source = serde_json::to_vec(source).expect("sources are plain JSON");
                message(0, &[&source])
            }
            Self::Mask {
                answer,
                num_left,
                urgency,
                sampled,
            } => {
                let sampled: Vec<u8> = sampled.iter().flat_map(|id| id.0.to_le_bytes()).collect();
                let kind = match urgency {
                    Urgency::Now => 1,
                    Urgency::Background => 3,
                };
                message(
                    kind,
                    &[&answer.to_le_bytes(), &num_left.to_le_bytes(), &sampled],
                )
            }
            Self::Forget { answer } => message(2, &[&answer.to_le_bytes()]),
        }
    }

    /// # Errors
    /// `UnexpectedEof` when the other end is gone, `InvalidData` for an invalid order.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let (kind, content) = read_message(from, MAX_MESSAGE)?;
        let mut content = content.as_slice();
        Ok(match kind {
            0 => Self::Compile(serde_json::from_slice(content)?),
            1 | 3 => Self::Mask {
                answer: u64::from_le_bytes(take(&mut content)?),
                num_left: u64::from_le_bytes(take(&mut content)?),
                urgency: match kind {
                    1 => Urgency::Now,
                    _ => Urgency::Background,
                },
                sampled: words(content)?.map(TokenId).collect(),
            },
            2 => Self::Forget {
                answer: u64::from_le_bytes(take(&mut content)?),
            },
            _ => return Err(malformed()),
        })
    }
}

impl Reply {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Compiled {
                private_bytes,
                least_tokens,
            } => message(
                0,
                &[&private_bytes.to_le_bytes(), &least_tokens.to_le_bytes()],
            ),
            Self::Refused(error) => {
                let error = serde_json::to_vec(error).expect("errors are plain JSON");
                message(1, &[&error])
            }
            Self::Mask { answer, cpu, mask } => {
                let cpu = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
                let words = mask.words().iter().flat_map(|word| word.to_le_bytes());
                let words: Vec<u8> = words.collect();
                message(2, &[&answer.to_le_bytes(), &cpu.to_le_bytes(), &words])
            }
            Self::Ended {
                answer,
                num_tokens,
                reason,
            } => message(
                3,
                &[
                    &answer.to_le_bytes(),
                    &(*num_tokens as u64).to_le_bytes(),
                    reason.as_bytes(),
                ],
            ),
        }
    }

    /// Reads a reply. Masks are over a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end is gone, `InvalidData` for an invalid reply.
    pub(super) fn read(from: &mut impl Read, vocab_size: usize) -> io::Result<Self> {
        let (kind, content) = read_message(from, MAX_MESSAGE)?;
        let mut content = content.as_slice();
        Ok(match kind {
            0 => Self::Compiled {
                private_bytes: u64::from_le_bytes(take(&mut content)?),
                least_tokens: u64::from_le_bytes(take(&mut content)?),
            },
            1 => Self::Refused(serde_json::from_slice(content)?),
            2 => {
                let answer = u64::from_le_bytes(take(&mut content)?);
                let cpu = u64::from_le_bytes(take(&mut content)?);
                let mut mask = TokenMask::none(vocab_size);
                let words = words(content)?;
                if words.len() != mask.words().len() {
                    return Err(malformed());
                }
                for (to, from) in mask.words_mut().iter_mut().zip(words) {
                    *to = from;
                }
                Self::Mask {
                    answer,
                    cpu: Duration::from_micros(cpu),
                    mask,
                }
            }
            3 => Self::Ended {
                answer: u64::from_le_bytes(take(&mut content)?),
                num_tokens: u64::from_le_bytes(take(&mut content)?) as usize,
                reason: String::from_utf8_lossy(content).into_owned(),
            },
            _ => return Err(malformed()),
        })
    }
}

/// Sends the vocabulary to a fork server.
///
/// # Errors
/// If the other end is gone.
pub(super) fn write_vocabulary(
    to: &mut impl Write,
    vocabulary: &GrammarVocabulary,
) -> io::Result<()> {
    let number = |number: usize| u32::try_from(number).expect("vocabularies are smaller");
    let mut content = Vec::new();
    content.extend(number(vocabulary.vocab_size).to_le_bytes());
    content.extend(number(vocabulary.stop_ids.len()).to_le_bytes());
    for id in &vocabulary.stop_ids {
        content.extend(id.0.to_le_bytes());
    }
    for word in &vocabulary.words {
        content.extend(number(word.len()).to_le_bytes());
        content.extend(word);
    }
    to.write_all(&message(0, &[&content]))
}

/// # Errors
/// `UnexpectedEof` when the other end is gone, `InvalidData` for an invalid vocabulary.
pub(super) fn read_vocabulary(from: &mut impl Read) -> io::Result<GrammarVocabulary> {
    let (_, content) = read_message(from, MAX_MESSAGE)?;
    let mut content = content.as_slice();
    let number = |content: &mut &[u8]| Ok::<_, io::Error>(u32::from_le_bytes(take(content)?));
    let vocab_size = number(&mut content)? as usize;
    let num_stop_ids = number(&mut content)?;
    let stop_ids = (0..num_stop_ids).map(|_| number(&mut content).map(TokenId));
    let stop_ids = stop_ids.collect::<io::Result<_>>()?;
    let mut words = Vec::with_capacity(vocab_size);
    while !content.is_empty() {
        let len = number(&mut content)? as usize;
        let (word, rest) = content.split_at_checked(len).ok_or_else(malformed)?;
        words.push(word.to_vec());
        content = rest;
    }
    Ok(GrammarVocabulary {
        vocab_size,
        stop_ids,
        words,
    })
}

/// Reports to the server that a fork server is ready, or why it cannot become ready.
///
/// # Errors
/// If the other end is gone.
pub(super) fn write_greeting(to: &mut impl Write, ready: Result<(), &str>) -> io::Result<()> {
    let (kind, reason) = match ready {
        Ok(()) => (0, ""),
        Err(reason) => (1, reason),
    };
    to.write_all(&message(kind, &[reason.as_bytes()]))
}

/// # Errors
/// If the other end is gone. The inner error is the reason why the fork server cannot become ready.
pub(super) fn read_greeting(from: &mut impl Read) -> io::Result<Result<(), String>> {
    let (kind, reason) = read_message(from, MAX_MESSAGE)?;
    Ok(match kind {
        0 => Ok(()),
        _ => Err(String::from_utf8_lossy(&reason).into_owned()),
    })
}

fn take<const N: usize>(content: &mut &[u8]) -> io::Result<[u8; N]> {
    let (first, rest) = content.split_first_chunk().ok_or_else(malformed)?;
    *content = rest;
    Ok(*first)
}

fn words(content: &[u8]) -> io::Result<impl ExactSizeIterator<Item = u32>> {
    let (words, rest) = content.as_chunks();
    if !rest.is_empty() {
        return Err(malformed());
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let orders = [
            Order::Compile(GrammarSource::Lark("start: \"ä\"".to_owned())),
            Order::Mask {
                answer: 7,
                num_left: 100,
                urgency: Urgency::Now,
                sampled: vec![TokenId(1), TokenId(262_143)],
            },
            Order::Mask {
                answer: 8,
                num_left: u64::MAX,
                urgency: Urgency::Background,
                sampled: Vec::new(),
            },
            Order::Forget { answer: u64::MAX },
        ];
        let bytes: Vec<u8> = orders.iter().flat_map(Order::to_bytes).collect();
        let mut bytes = bytes.as_slice();
        for order in orders {
            assert_eq!(Order::read(&mut bytes).expect("it was written"), order);
        }
        let mut mask = TokenMask::none(70);
        mask.allow(TokenId(69));
        let replies = [
            Reply::Compiled {
                private_bytes: 9,
                least_tokens: 4,
            },
            Reply::Refused(GrammarError::new("no".to_owned()).at(".a")),
            Reply::Mask {
                answer: 3,
                cpu: Duration::from_micros(81),
                mask,
            },
            Reply::Ended {
                answer: 4,
                num_tokens: 5,
                reason: "é".to_owned(),
            },
        ];
        let bytes: Vec<u8> = replies.iter().flat_map(Reply::to_bytes).collect();
        let mut bytes = bytes.as_slice();
        for reply in replies {
            assert_eq!(Reply::read(&mut bytes, 70).expect("it was written"), reply);
        }
        let end = Reply::read(&mut bytes, 70).expect_err("nothing is left");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_vocabulary_is_read_as_it_was() {
        let vocabulary = GrammarVocabulary {
            vocab_size: 3,
            stop_ids: vec![TokenId(1)],
            words: vec![b"a".to_vec(), Vec::new(), "é".into()],
        };
        let mut bytes = Vec::new();
        write_vocabulary(&mut bytes, &vocabulary).expect("a list takes it");
        assert_eq!(read_vocabulary(&mut bytes.as_slice()).unwrap(), vocabulary);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [
            &[0, 0, 0, 0, 9][..],
            &[1, 0, 0, 0, 1, 5],
            &[255, 255, 255, 255, 0],
        ] {
            assert!(Order::read(&mut &*bytes).is_err(), "{bytes:?}");
            assert!(Reply::read(&mut &*bytes, 40).is_err(), "{bytes:?}");
        }
        // A mask over another vocabulary.
        let reply = Reply::Mask {
            answer: 0,
            cpu: Duration::ZERO,
            mask: TokenMask::all(64),
        };
        assert!(Reply::read(&mut reply.to_bytes().as_slice(), 65).is_err());
    }
}
