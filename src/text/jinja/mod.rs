//! Jinja as chat templates expect it: what transformers adds to Jinja2, and the few differences
//! between minijinja and Python. The reference is transformers' `utils/chat_template_utils.py`.
//!
//! Knows nothing of messages or tokens.

mod dates;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat;

use dates::strftime_now;

/// Limit of a rendering's time and memory: one unit for each step and for each 64 bytes of output
/// values. Enough for 40,000 messages or 40 MB of text. A template that loops or grows strings
/// without end is stopped within about a second and 300 MB. It does not bound everything that a
/// template can do: an unknown one has a process of its own.
pub(super) const FUEL: u64 = 4_000_000;

/// Maximum size of a prompt in bytes: four for each of 8 million tokens, far more than any model
/// accepts.
pub(super) const MAX_RENDERED_BYTES: usize = 32 << 20;

/// Maximum indent of `tojson` per level, in spaces.
const MAX_INDENT: u64 = 32;
/// Maximum indent of `tojson` over all lines together, in spaces.
const MAX_SPACES: u64 = 16 << 20;

/// Name of the template in the environment.
const TEMPLATE: &str = "chat_template";

/// Returns an environment with the compiled template, and with variables for every rendering.
pub(super) fn environment(
    source: &str,
    globals: &BTreeMap<String, String>,
) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    env.set_syntax(syntax);
    env.set_fuel(Some(FUEL));
    // Debug information would include parts of messages in errors.
    env.set_debug(false);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(python_method);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_filter("trim", trim);
    env.add_filter("tojson", tojson);
    for (name, value) in globals {
        env.add_global(name.clone(), value.as_str());
    }
    env.add_template_owned(TEMPLATE, as_jinja2_reads(source))?;
    Ok(env)
}

/// Renders the environment's template with `context`: at most [`MAX_RENDERED_BYTES`], else the
/// error is a write failure.
pub(super) fn render(env: &Environment<'static>, context: Value) -> Result<String, Error> {
    let mut text = Limited(Vec::new());
    env.get_template(TEMPLATE)?
        .render_captured_to(context, &mut text)?;
    Ok(String::from_utf8(text.0).expect("templates write whole strings"))
}

/// What a template has written so far. It takes no more than [`MAX_RENDERED_BYTES`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_RENDERED_BYTES - self.0.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The message of a `raise_exception` call.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Returns the message of `raise_exception`, if that is why rendering failed.
pub(super) fn raised(error: &Error) -> Option<&str> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message);
        }
        source = error.source();
    }
    None
}

/// Returns the original error: includes and macros wrap it in errors of their own.
pub(super) fn cause(error: &Error) -> &Error {
    let mut cause = error;
    while let Some(inner) = cause.source().and_then(|source| source.downcast_ref()) {
        cause = inner;
    }
    cause
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception");
    Err(error.with_source(Raised(message.to_owned())))
}

/// Whether Python treats `c` as white space: Unicode's white space and the four ASCII separators.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Jinja2's `trim`: Python's `str(value).strip(chars)`. A long text that is trimmed already is not
/// copied.
fn trim(value: Value, chars: Option<&str>) -> Value {
    let trimmed = |text: &str| -> Option<String> {
        let trimmed = match chars {
            None => text.trim_matches(is_python_space),
            Some(chars) => text.trim_matches(|c| chars.contains(c)),
        };
        (trimmed.len() < text.len()).then(|| trimmed.to_owned())
    };
    match value.as_str() {
        Some(text) => trimmed(text).map_or_else(|| value.clone(), Value::from),
        None => {
            let text = value.to_string();
            Value::from(trimmed(&text).unwrap_or(text))
        }
    }
}

/// Implements methods of Python's types.
fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let no_chars = args.iter().all(Value::is_none);
    match (value.as_str(), method) {
        (Some(text), "strip") if no_chars => Ok(text.trim_matches(is_python_space).into()),
        (Some(text), "lstrip") if no_chars => Ok(text.trim_start_matches(is_python_space).into()),
        (Some(text), "rstrip") if no_chars => Ok(text.trim_end_matches(is_python_space).into()),
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// transformers' `tojson`: `json.dumps(value, ensure_ascii=False, indent=indent)`. Unlike Jinja's
/// own filter, it does not escape `<`, `>`, `&` and `'`.
fn tojson(value: &Value, args: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = args.get("indent")?;
    let ensure_ascii: Option<bool> = args.get("ensure_ascii")?;
    if ensure_ascii == Some(true) {
        let message = "tojson(ensure_ascii=True) is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    args.assert_all_used()?;
    let indent = indent.filter(|indent| !indent.is_none());
    // Fuel counts the output only after it exists, so the indent is limited beforehand.
    if let Some(indent) = indent.as_ref().filter(|indent| indent.is_number()) {
        let refused = |limit: String| {
            let message = format!("tojson(indent={indent}) is not supported; at most {limit}");
            Error::new(ErrorKind::InvalidOperation, message)
        };
        let spaces = indent
            .as_i64()
            .and_then(|indent| u64::try_from(indent).ok());
        let spaces = spaces.filter(|spaces| *spaces <= MAX_INDENT);
        let spaces = spaces.ok_or_else(|| refused(format!("{MAX_INDENT} is")))?;
        if spaces * levels_of_lines(value, 0) > MAX_SPACES {
            return Err(refused(format!("{MAX_SPACES} spaces are")));
        }
    }
    let escaped = filters::tojson(
        value,
        indent,
        Kwargs::from_iter(Vec::<(String, Value)>::new()),
    )?;
    Ok(without_html_escapes(&escaped.to_string()))
}

/// Returns the sum of the indent levels of all lines of a value's JSON.
fn levels_of_lines(value: &Value, level: u64) -> u64 {
    let Some(object) = value.as_object() else {
        return level;
    };
    let inside: u64 = match object.try_iter_pairs() {
        Some(pairs) => pairs
            .map(|(_, value)| levels_of_lines(&value, level + 1))
            .sum(),
        None => (object.try_iter().into_iter().flatten())
            .map(|item| levels_of_lines(&item, level + 1))
            .sum(),
    };
    2 * level + inside
}

fn without_html_escapes(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let escaped = [
            ("\\u003c", '<'),
            ("\\u003e", '>'),
            ("\\u0026", '&'),
            ("\\u0027", '\''),
        ];
        let found = escaped.iter().find(|(escape, _)| rest.starts_with(escape));
        // Any other escape is two ASCII bytes, or more without a backslash.
        let len = match found {
            Some((escape, c)) => {
                out.push(*c);
                escape.len()
            }
            None => {
                out.push_str(&rest[..2]);
                2
            }
        };
        rest = &rest[len..];
    }
    out + rest
}

/// Returns the source as Jinja2 with transformers' extension reads it: with one kind of newline,
/// and with `{% generation %}`, which marks the model's text for training, as a block without
/// effect.
fn as_jinja2_reads(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        for (theirs, ours) in [("generation", "with"), ("endgeneration", "endwith")] {
            let Some(after) = name.strip_prefix(theirs) else {
                continue;
            };
            if after
                .trim_start()
                .trim_start_matches(['-', '+'])
                .starts_with("%}")
            {
                out.push_str(&tag[..tag.len() - name.len()]);
                out.push_str(ours);
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests;
