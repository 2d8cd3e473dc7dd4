//! Parses TOML to the JSON values that field readers use, with each field's line.

use std::path::Path;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::files::json_fields::Lines;

/// Returns the document's fields and their lines.
///
/// # Errors
/// Returns `Checkpoint` with the line for invalid TOML.
pub(super) fn parse(file: &Path, text: &str) -> Result<(Value, Lines)> {
    let refused = |error: toml::de::Error| {
        let at = error.span().map_or(String::new(), |span| {
            format!("line {}: ", line_at(text, span.start))
        });
        Error::Checkpoint {
            file: file.to_owned(),
            message: format!("{at}{}", error.message()),
        }
    };
    let table: toml::Table = toml::from_str(text).map_err(refused)?;
    let spanned = DeTable::parse(text).map_err(refused)?;
    let mut lines = Lines::new();
    collect_lines(text, "", spanned.get_ref(), &mut lines);
    let value = serde_json::to_value(table).map_err(|error| Error::Checkpoint {
        file: file.to_owned(),
        message: error.to_string(),
    })?;
    Ok((value, lines))
}

fn collect_lines(text: &str, path: &str, table: &DeTable<'_>, lines: &mut Lines) {
    for (name, value) in table {
        let path = if path.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{path}.{}", name.get_ref())
        };
        if let DeValue::Table(table) = value.get_ref() {
            collect_lines(text, &path, table, lines);
        }
        lines.insert(path, line_at(text, name.span().start));
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
