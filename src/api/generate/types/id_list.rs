//! Lists of token ids, which may be most of a large body.

use std::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// Token ids as a client sent them: not yet checked against a vocabulary.
#[derive(Debug)]
pub(crate) struct IdList(pub(crate) Vec<i32>);

/// Reads the rest of a list whose first element is known. The list grows by a sixteenth of its
/// length, not to twice its length, so that it takes little more memory than its elements.
pub(crate) fn read_rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: T,
    mut seq: A,
) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(element) = seq.next_element()? {
        if all.len() == all.capacity() {
            all.reserve_exact(16 + all.len() / 16);
        }
        all.push(element);
    }
    Ok(all)
}

struct IdListVisitor;

impl<'de> Visitor<'de> for IdListVisitor {
    type Value = IdList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<IdList, A::Error> {
        Ok(IdList(match seq.next_element()? {
            None => Vec::new(),
            Some(id) => read_rest(id, seq)?,
        }))
    }
}

impl<'de> Deserialize<'de> for IdList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(IdListVisitor)
    }
}
