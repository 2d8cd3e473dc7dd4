//! The schema of token ids, whose type is the engine's.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::core::TokenId;

impl JsonSchema for TokenId {
    fn schema_name() -> Cow<'static, str> {
        "TokenId".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = u32::json_schema(generator);
        let description = "A token id: an index into the model's vocabulary.";
        schema.insert("description".to_owned(), description.into());
        schema
    }
}
