//! Jinja as chat templates expect it: what transformers adds to Jinja2, and the few differences
//! between minijinja and Python. The reference is transformers' `utils/chat_template_utils.py`.
//!
//! Knows nothing of messages or tokens.

use std::error::Error as _;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, filters, machinery};
use minijinja_contrib::pycompat;

use super::jinja_bounds::{MAX_TIME, add_filters, woven};

/// Limit of a rendering's time and memory: one unit for each step and for each 64 bytes of output
/// values. Enough for 40,000 messages or 40 MB of text. A template that loops or grows strings
/// without end is stopped within about a second and 300 MB. `jinja_bounds` bounds what minijinja's
/// fuel does not count.
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

/// Returns an environment with the compiled template.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
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
    add_filters(&mut env, MAX_TIME);
    env.add_template_owned(TEMPLATE, as_jinja2_reads(source))?;
    Ok(env)
}

/// Renders the environment's template with `context`: at most [`MAX_RENDERED_BYTES`], else the
/// error is a write failure.
pub(super) fn render(env: &Environment<'static>, context: Value) -> Result<String, Error> {
    let template = env.get_template(TEMPLATE)?;
    let compiled = machinery::get_compiled_template(&template);
    let program = woven(&compiled.instructions);
    let blocks = compiled.blocks.iter();
    let blocks = blocks.map(|(name, block)| (*name, woven(block))).collect();
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    let escape = compiled.initial_auto_escape.clone();
    machinery::eval(env, &program, context, &blocks, &mut output, escape)?;
    if text.len() > MAX_RENDERED_BYTES {
        return Err(Error::new(ErrorKind::WriteFailure, "too much"));
    }
    Ok(text)
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

/// The current time as Python's `datetime.now().strftime(format)` prints it, but in UTC: containers
/// run in it, and a server's answers should not depend on its location.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let now = Timestamp::new(now.as_secs() as i64, now.subsec_nanos() as i32);
    let text = now.map_err(|error| error.to_string());
    text.and_then(|now| strftime(now, format))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error))
}

/// The directives that Python knows on Linux. The library has others.
const DIRECTIVES: &str = "%aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ";

/// Prints a time in English and in UTC. A `-` after the percent sign means without padding. The
/// error names an unknown directive.
fn strftime(time: Timestamp, format: &str) -> Result<String, String> {
    let mut known = String::with_capacity(format.len());
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        known.push(c);
        if c != '%' {
            continue;
        }
        let mut directive = rest.next();
        let is_bare = directive == Some('-');
        if is_bare {
            known.push('-');
            directive = rest.next();
        }
        match directive {
            // Python prints microseconds.
            Some('f') if !is_bare => known.push_str("6f"),
            Some(directive) if DIRECTIVES.contains(directive) => known.push(directive),
            unknown => {
                let unknown = unknown.map_or(String::new(), String::from);
                return Err(format!("strftime_now does not know %{unknown}"));
            }
        }
    }
    let config = Config::new().custom(PosixCustom::new());
    BrokenDownTime::from(&time.to_zoned_datetime(TimeZone::UTC))
        .to_string_with_config(&config, &known)
        .map_err(|error| format!("strftime_now cannot print this: {error}"))
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
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let context = Value::from_pairs([(
            "user",
            Value::from_pairs([
                (
                    "zeta",
                    Value::from("é <b> & 'x' \" \\u003c \\ \n \u{1} \u{7f}"),
                ),
                (
                    "alpha",
                    Value::from(vec![
                        Value::from(1),
                        Value::from(1.5),
                        Value::from(true),
                        Value::from(()),
                    ]),
                ),
            ]),
        )]);
        super::render(&environment(source)?, context)
    }

    #[test]
    fn blocks_leave_no_lines_and_one_final_newline_goes() {
        let source = "a\n  {% if true %}\n  b\n  {%- endif %}\r\nc\r\n\r\n";
        assert_eq!(render(source).unwrap(), "a\n  bc\n");
    }

    #[test]
    fn whitespace_is_pythons() {
        // U+200B is not white space in Python, U+001F is.
        let text = "\\u001f\\u00a0\\u3000 a\\u200b \\u2028\\u0085";
        for trimmed in [
            "'TEXT' | trim",
            "'TEXT'.strip()",
            "'TEXT'.lstrip().rstrip(none)",
        ] {
            let source = format!("[{{{{ {} }}}}]", trimmed.replace("TEXT", text));
            assert_eq!(render(&source).unwrap(), "[a\u{200b}]", "{trimmed}");
        }
        assert_eq!(
            render("{{ 'xaxbx' | trim('x') }}{{ none | trim }}").unwrap(),
            "axbNone"
        );
        assert_eq!(
            render("{{ 'xaxbx'.strip('x') }}{{ missing | trim }}").unwrap(),
            "axb"
        );
    }

    #[test]
    fn tojson_is_pythons_dumps() {
        let expected = "{\"zeta\": \"é <b> & 'x' \\\" \\\\u003c \\\\ \\n \\u0001 \u{7f}\", \
                        \"alpha\": [1, 1.5, true, null]}";
        assert_eq!(render("{{ user | tojson }}").unwrap(), expected);
        assert_eq!(
            render("{{ user | tojson(ensure_ascii=false) }}").unwrap(),
            expected
        );
        assert_eq!(
            render("{{ {'a': [1, '>']} | tojson(indent=2) }}").unwrap(),
            "{\n  \"a\": [\n    1,\n    \">\"\n  ]\n}"
        );
        for indent in ["33", "6625156484436722546", "10 ** 30", "-1", "1.5"] {
            let error = render(&format!("{{{{ user | tojson(indent={indent}) }}}}")).unwrap_err();
            assert!(error.to_string().contains("at most 32 is"), "{error}");
        }
        for option in ["ensure_ascii=true", "sort_keys=true"] {
            let error = render(&format!("{{{{ user | tojson({option}) }}}}")).unwrap_err();
            let name = option.split('=').next().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn values_print_as_in_python() {
        assert_eq!(
            render("{{ true }} {{ none }} {{ 1.0 }} {{ [1, 'a'] }} {{ missing }}").unwrap(),
            "True None 1.0 [1, 'a'] "
        );
    }

    #[test]
    fn a_template_raises_in_its_own_words() {
        let error =
            render("{% if true %}{{ raise_exception('Roles <must> alternate') }}{% endif %}");
        assert_eq!(raised(&error.unwrap_err()), Some("Roles <must> alternate"));
        let error = render("{% macro f() %}{{ raise_exception('no') }}{% endmacro %}{{ f() }}");
        assert_eq!(raised(&error.unwrap_err()), Some("no"));
        assert_eq!(raised(&render("{{ 1 + 'a' }}").unwrap_err()), None);
    }

    #[test]
    fn todays_date_is_there() {
        let year: i32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
        assert!(year >= 2024, "{year}");
        assert!(
            render("{{ strftime_now('%Q') }}")
                .unwrap_err()
                .to_string()
                .contains("%Q")
        );
    }

    #[test]
    fn times_print_as_in_c() {
        let print = |seconds, format| strftime(Timestamp::from_second(seconds).unwrap(), format);
        // Each line: date -u -d @SECONDS +FORMAT
        for (seconds, format, expected) in [
            (
                0,
                "%A %d %B %Y %H:%M:%S",
                "Thursday 01 January 1970 00:00:00",
            ),
            (951_782_399, "%d %b %Y %T %j", "28 Feb 2000 23:59:59 059"),
            (951_782_400, "%F %a %j", "2000-02-29 Tue 060"),
            (
                978_220_800,
                "%d.%m.%y %I %p day %j",
                "31.12.00 12 AM day 366",
            ),
            (1_767_225_599, "%Y-%m-%d %I:%M %p", "2025-12-31 11:59 PM"),
            (
                1_772_582_405,
                "%-d/%-m %-H:%-M:%-S|%e|100%%",
                "4/3 0:0:5| 4|100%",
            ),
            (4_107_542_400, "%F", "2100-03-01"),
            (-1, "%F %T %Z%z", "1969-12-31 23:59:59 UTC+0000"),
        ] {
            assert_eq!(print(seconds, format).as_deref(), Ok(expected), "{seconds}");
        }
    }

    #[test]
    fn every_directive_prints_as_in_python() {
        // datetime.fromtimestamp(1772582405, timezone.utc).strftime(...)
        let directives = [
            ('a', "Wed"),
            ('A', "Wednesday"),
            ('b', "Mar"),
            ('B', "March"),
            ('c', "Wed Mar  4 00:00:05 2026"),
            ('C', "20"),
            ('d', "04"),
            ('D', "03/04/26"),
            ('e', " 4"),
            ('f', "000000"),
            ('F', "2026-03-04"),
            ('g', "26"),
            ('G', "2026"),
            ('h', "Mar"),
            ('H', "00"),
            ('I', "12"),
            ('j', "063"),
            ('k', " 0"),
            ('l', "12"),
            ('m', "03"),
            ('M', "00"),
            ('n', "\n"),
            ('p', "AM"),
            ('P', "am"),
            ('r', "12:00:05 AM"),
            ('R', "00:00"),
            ('s', "1772582405"),
            ('S', "05"),
            ('t', "\t"),
            ('T', "00:00:05"),
            ('u', "3"),
            ('U', "09"),
            ('V', "10"),
            ('w', "3"),
            ('W', "09"),
            ('x', "03/04/26"),
            ('X', "00:00:05"),
            ('y', "26"),
            ('Y', "2026"),
            ('z', "+0000"),
            ('Z', "UTC"),
            ('%', "%"),
        ];
        let time = Timestamp::from_second(1_772_582_405).unwrap();
        for (directive, expected) in directives {
            let printed = strftime(time, &format!("<%{directive}>"));
            assert_eq!(printed, Ok(format!("<{expected}>")), "%{directive}");
        }
        for (directive, expected) in [
            ('a', "Wed"),
            ('d', "4"),
            ('e', "4"),
            ('F', "2026-03-04"),
            ('H', "0"),
            ('I', "12"),
            ('j', "63"),
            ('k', "0"),
            ('m', "3"),
            ('M', "0"),
            ('p', "AM"),
            ('S', "5"),
            ('U', "9"),
            ('W', "9"),
            ('Y', "2026"),
            ('%', "%"),
        ] {
            let printed = strftime(time, &format!("%-{directive}"));
            assert_eq!(printed.as_deref(), Ok(expected), "%-{directive}");
        }
        let known = directives.map(|(directive, _)| directive);
        for directive in ('!'..='~').filter(|c| !known.contains(c) && *c != '-') {
            let expected = format!("strftime_now does not know %{directive}");
            let printed = strftime(time, &format!("at %{directive}"));
            assert_eq!(printed, Err(expected));
        }
        for (format, expected) in [
            ("at %", "strftime_now does not know %"),
            ("%-", "strftime_now does not know %"),
            ("%--d", "strftime_now does not know %-"),
            ("%-f", "strftime_now does not know %f"),
        ] {
            assert_eq!(strftime(time, format).unwrap_err(), expected);
        }
    }

    #[test]
    fn generation_marks_do_nothing() {
        assert_eq!(
            render("a {%- generation -%} b {{ '{% x' }} {%generation%}\nc\n{% endgeneration %}{%+ endgeneration %} d").unwrap(),
            "ab {% x c\n d"
        );
    }

    #[test]
    fn loops_can_be_left() {
        let source = "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}\
                      {% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}";
        assert_eq!(render(source).unwrap(), "023");
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        for source in [
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{{ 'x' * 9000000000 }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% set x = 'aaaaaaaa' * 1000000 %}{% for i in range(100000) %}{{ x | trim }}{% endfor %}",
            "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if x.replace('a', 'b') %}{% endif %}{% endfor %}",
        ] {
            render(source).expect_err(source);
        }
    }
}
