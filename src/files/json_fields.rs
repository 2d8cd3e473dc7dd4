//! Reads a JSON object field by field, with errors that name file and field.
//!
//! Knows nothing of the fields' meaning. Every access is recorded, so that unknown fields can be
//! reported for our own files, where they are mistakes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::{damaged, shown};
use crate::error::{Error, Result};

/// An object of a JSON file.
pub struct Fields<'a> {
    file: &'a Path,
    /// Dotted path from the file's root; empty at the root.
    path: String,
    object: &'a Map<String, Value>,
    /// Paths of all fields that were accessed, shared with parent and child objects.
    asked: Rc<RefCell<BTreeSet<String>>>,
    lines: Rc<Lines>,
}

/// Line of each field in its file: dotted path → line, from 1. Empty if unknown.
pub type Lines = BTreeMap<String, usize>;

impl<'a> Fields<'a> {
    /// Wraps the object `value` of `file`.
    ///
    /// # Errors
    /// Fails when it is not an object.
    pub fn new(file: &'a Path, value: &'a Value) -> Result<Self> {
        let object = value.as_object().ok_or_else(|| Error::Checkpoint {
            file: file.to_owned(),
            message: format!("expected a JSON object, found {}", kind(value)),
        })?;
        Ok(Self {
            file,
            path: String::new(),
            object,
            asked: Rc::default(),
            lines: Rc::default(),
        })
    }

    /// Adds line numbers to errors.
    #[must_use]
    pub fn with_lines(self, lines: Lines) -> Self {
        Self {
            lines: Rc::new(lines),
            ..self
        }
    }

    /// Creates an error about `name` in this object.
    pub fn error(&self, name: &str, message: impl std::fmt::Display) -> Error {
        let path = self.path_of(name);
        let line = self.line_of(&path);
        let at = line.map_or(String::new(), |line| format!("line {line}: "));
        damaged(self.file, format_args!("{at}{} {message}", shown(&path)))
    }

    /// Returns the line of the field, or of the nearest object around it.
    fn line_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// Returns the field's dotted path from the root of the file.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Names of this object's fields.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.object.keys().map(String::as_str)
    }

    /// Returns the field's value, null included.
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(self.path_of(name));
        self.object.get(name)
    }

    /// Returns the field's value; null counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.raw(name).filter(|value| !value.is_null())
    }

    /// Returns an object within this one; null counts as absent.
    ///
    /// # Errors
    /// Fails when the field is something else.
    pub fn section(&self, name: &str) -> Result<Option<Self>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let object = value
            .as_object()
            .ok_or_else(|| self.wrong_type(name, "an object", value))?;
        Ok(Some(Self {
            file: self.file,
            path: self.path_of(name),
            object,
            asked: Rc::clone(&self.asked),
            lines: Rc::clone(&self.lines),
        }))
    }

    /// Returns a whole number between 1 and `max`; `default` when the field is absent.
    ///
    /// # Errors
    /// Fails when it is null, out of range, something else, or absent without a default.
    pub fn count(&self, name: &str, default: Option<usize>, max: usize) -> Result<usize> {
        let value = match (self.raw(name), default) {
            (Some(value), _) => value,
            (None, Some(default)) => return Ok(default),
            (None, None) => return Err(self.error(name, "is missing")),
        };
        let number = value
            .as_u64()
            .ok_or_else(|| self.wrong_type(name, "a whole number", value))?;
        match usize::try_from(number) {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(self.error(
                name,
                format_args!("is {number}; it must be between 1 and {max}"),
            )),
        }
    }

    /// Returns a number above zero that f32 holds with a wide margin; `default` when the field is
    /// absent.
    ///
    /// # Errors
    /// Fails when it is null, something else, or out of this range.
    pub fn positive(&self, name: &str, default: f64) -> Result<f64> {
        /// Upper limit: its square, and the square of the inverse, are still normal f32 numbers.
        const MOST: f64 = 1e18;
        let Some(value) = self.raw(name) else {
            return Ok(default);
        };
        match value.as_f64() {
            Some(number) if (1.0 / MOST..=MOST).contains(&number) => Ok(number),
            Some(number) if number > 0.0 => Err(self.error(
                name,
                format_args!("is {number:e}; it must be between 1e-18 and 1e18"),
            )),
            Some(number) => Err(self.error(name, format_args!("is {number}; it must be above 0"))),
            None => Err(self.wrong_type(name, "a number", value)),
        }
    }

    /// Returns a number between `min` and `max`.
    ///
    /// # Errors
    /// Fails when it is out of range or something else.
    pub fn number(&self, name: &str, min: f64, max: f64) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            Some(number) => Err(self.error(
                name,
                format_args!("is {number}; it must be between {min} and {max}"),
            )),
            None => Err(self.wrong_type(name, "a number", value)),
        }
    }

    /// Returns a string; null counts as absent.
    ///
    /// # Errors
    /// Fails when it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.wrong_type(name, "text", value))
            })
            .transpose()
    }

    /// Returns a boolean; null counts as absent.
    ///
    /// # Errors
    /// Fails when it is something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.get(name)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| self.wrong_type(name, "true or false", value))
            })
            .transpose()
    }

    /// Returns a list; null counts as absent.
    ///
    /// # Errors
    /// Fails when it is something else.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>> {
        self.get(name)
            .map(|value| {
                value
                    .as_array()
                    .map(Vec::as_slice)
                    .ok_or_else(|| self.wrong_type(name, "a list", value))
            })
            .transpose()
    }

    /// Returns one token id or a list of them; empty when absent.
    ///
    /// # Errors
    /// Fails when it is something else.
    pub fn token_ids(&self, name: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| {
            value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.wrong_type(name, "a token id or a list of them", value))
        };
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }

    /// Refuses the field unless it is absent, null, or one of `neutral`: any other value requires a
    /// feature that is not implemented, and ignoring it would compute another model.
    ///
    /// # Errors
    /// Fails when the field has another value.
    pub fn refuse_unless(&self, name: &str, neutral: &[Value]) -> Result<()> {
        match self.get(name) {
            Some(value) if !neutral.contains(value) => Err(self.error(
                name,
                format_args!("is {}, which is not supported", abridged(value)),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses fields that were never accessed, in this object and in its sections: in our own
    /// files they are typos.
    ///
    /// # Errors
    /// Fails when there is such a field.
    pub fn refuse_unasked(&self) -> Result<()> {
        match first_unasked(&self.asked.borrow(), &self.path, self.object) {
            Some(path) => {
                let name = match self.path.len() {
                    0 => &path[..],
                    len => &path[len + 1..],
                };
                Err(self.error(name, "is not a field of this file"))
            }
            None => Ok(()),
        }
    }

    /// Creates an error about a field of the wrong type.
    pub fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> Error {
        self.error(
            name,
            format_args!("must be {expected}, not {}", abridged(found)),
        )
    }
}

fn first_unasked(
    asked: &BTreeSet<String>,
    path: &str,
    object: &Map<String, Value>,
) -> Option<String> {
    object.iter().find_map(|(name, value)| {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            _ if !asked.contains(&path) => Some(path),
            Value::Object(object) => first_unasked(asked, &path, object),
            _ => None,
        }
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns the value as JSON, short enough for one line of an error.
fn abridged(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
        _ => {
            let text = value.to_string();
            if text.chars().count() <= MAX_CHARS {
                return text;
            }
            let cut: String = text.chars().take(MAX_CHARS).collect();
            format!("{cut}…")
        }
    }
}
