//! Bounds on the values that a template creates, which minijinja's fuel does not cover.
//!
//! Fuel counts instructions, bytes and slots, but `[x, x]` is two slots whatever `x` contains.
//! Sixty nested steps of that make a value that takes forever to print or compare, and a million
//! nested `[x]` make one whose destructor overflows the stack. So after each instruction that
//! creates a value, another instruction is inserted that measures the value with all of its
//! contents. Measured values may be read as often as the fuel allows; a clock bounds the total time
//! of that.
//!
//! Inserting instructions needs minijinja's unstable machinery and its list of instructions.
//! Therefore Cargo.toml pins one exact version.

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

/// Maximum number of parts of a value: all items of its lists and maps on all levels, each counted
/// as often as it is contained. A string is one part for every 64 bytes.
const MAX_PARTS: u64 = 1 << 20;
const BYTES_PER_PART: u64 = 64;
/// Maximum nesting of lists and maps. JSON input has up to 128 levels.
const MAX_LEVELS: usize = 200;
/// Number of parts that cost one unit of fuel. Measuring them takes about as long as other work for
/// one unit.
const PARTS_PER_FUEL: u64 = 64;
/// Maximum time for a rendering. A usual one takes a few milliseconds.
pub(super) const MAX_TIME: Duration = Duration::from_secs(5);

/// Names of the inserted filters. They are not valid identifiers, so a template cannot apply them.
const MEASURED: &str = "-measured";
const LISTED: &str = "-listed";
const STORABLE: &str = "-storable";
/// Value for "not in minijinja's filter cache".
const UNCACHED: u8 = u8::MAX;

pub(super) fn add_filters(env: &mut Environment<'_>, max_time: Duration) {
    let measured = move |state: &mut State, value| {
        look_at_the_clock(state, max_time)?;
        measured(state, value)
    };
    env.add_filter(MEASURED, measured);
    env.add_filter(LISTED, move |state: &mut State, value| {
        listed(measured(state, value)?)
    });
    env.add_filter(STORABLE, storable);
}

/// Returns the same program with the bounds inserted, for an environment that has the filters.
pub(super) fn woven<'source>(program: &Instructions<'source>) -> Instructions<'source> {
    let apply = |name| Instruction::ApplyFilter(name, Some(1), UNCACHED);
    let old: Vec<&Instruction> = (0..).map_while(|at| program.get(at)).collect();
    // The new position of each old instruction, and the end of the new program.
    let mut begins = vec![0];
    let mut end = 0;
    for instruction in &old {
        end += match instruction {
            Instruction::SetAttr(_) => 4,
            other if bound(other).is_some() => 2,
            _ => 1,
        };
        begins.push(end);
    }
    let moved = |target: u32| begins[target as usize];
    let mut woven = Instructions::new(program.name(), program.source());
    for (at, &instruction) in (0..).zip(&old) {
        let line = program.get_line(at).unwrap_or(0);
        let line = u16::try_from(line).unwrap_or(u16::MAX);
        let mut add = |instruction| woven.add_with_line(instruction, line);
        if let Instruction::SetAttr(_) = instruction {
            // The namespace is on top of the stack, the value to store is below it.
            add(Instruction::Swap);
            add(apply(STORABLE));
            add(Instruction::Swap);
        }
        add(match *instruction {
            Instruction::Iterate(target) => Instruction::Iterate(moved(target)),
            Instruction::Jump(target) => Instruction::Jump(moved(target)),
            Instruction::JumpIfFalse(target) => Instruction::JumpIfFalse(moved(target)),
            Instruction::JumpIfFalseOrPop(target) => Instruction::JumpIfFalseOrPop(moved(target)),
            Instruction::JumpIfTrueOrPop(target) => Instruction::JumpIfTrueOrPop(moved(target)),
            Instruction::BuildMacro(name, target, flags) => {
                Instruction::BuildMacro(name, moved(target), flags)
            }
            ref other => other.clone(),
        });
        if let Some(filter) = bound(instruction) {
            add(apply(filter));
        }
    }
    woven
}

/// Returns the filter to insert after an instruction that creates a value, or whose time grows with
/// the contents of its values.
fn bound(instruction: &Instruction<'_>) -> Option<&'static str> {
    use Instruction as I;
    match instruction {
        I::Slice
        | I::Mul
        | I::ApplyFilter(..)
        | I::CallFunction(..)
        | I::CallMethod(..)
        | I::CallObject(_) => Some(LISTED),
        // Sums of lists are iterators too, but minijinja itself limits their growth.
        I::BuildMap(_) | I::BuildList(_) | I::BuildTuple(_) | I::Add | I::StringConcat => {
            Some(MEASURED)
        }
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte => Some(MEASURED),
        I::In | I::CompareAndPreserve(_) | I::PerformTest(..) => Some(MEASURED),
        _ => None,
    }
}

/// Time when a rendering created its first value.
struct Began(Instant);

fn look_at_the_clock(state: &mut State<'_, '_>, max_time: Duration) -> Result<(), Error> {
    let Began(began) = state.get_or_insert_extension_with(|| Began(Instant::now()));
    if began.elapsed() > max_time {
        let message = format!("it took longer than {max_time:?}");
        return Err(Error::new(ErrorKind::OutOfFuel, message));
    }
    Ok(())
}

/// Returns the value if it is within the bounds.
fn measured(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let mut parts = 0;
    count_within(&value, &mut parts, MAX_LEVELS)?;
    state.consume_fuel(parts / PARTS_PER_FUEL)?;
    Ok(value)
}

/// Returns the value, with an iterator converted to a list: nested iterators could grow without
/// being measured.
fn listed(value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let items = value.try_iter()?.checked();
    Ok(items.collect::<Result<Vec<_>, _>>()?.into())
}

/// Returns the value if a namespace may hold it. Values that could come to contain the namespace
/// are refused, because such a cycle is endless and never freed. The value is measured again, so
/// that many large ones cost fuel.
fn storable(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if changes(&value) {
        return Err(beyond("a namespace cannot hold a namespace or a loop"));
    }
    measured(state, value)
}

/// Adds the number of parts that `value` contains to `parts`, with at most `levels` levels.
fn count_within(value: &Value, parts: &mut u64, levels: usize) -> Result<(), Error> {
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    let Some(levels) = levels.checked_sub(1) else {
        return Err(beyond(&format!(
            "a list or map has more than {MAX_LEVELS} levels"
        )));
    };
    // Most objects are one of these types, and direct access is faster than the general interface.
    if let Some(list) = object.downcast_ref::<Vec<Value>>() {
        list.iter().try_for_each(|item| count(item, parts, levels))
    } else if let Some(map) = object.downcast_ref::<IndexMap<Value, Value>>() {
        (map.iter().flat_map(|(key, value)| [key, value]))
            .try_for_each(|part| count(part, parts, levels))
    } else if let Some(mut pairs) = object.try_iter_pairs() {
        pairs.try_for_each(|(key, value)| {
            count(&key, parts, levels)?;
            count(&value, parts, levels)
        })
    } else if let Some(mut items) = object.try_iter() {
        items.try_for_each(|item| count(&item, parts, levels))
    } else {
        Ok(())
    }
}

fn count(value: &Value, parts: &mut u64, levels: usize) -> Result<(), Error> {
    let len = value.as_str().map_or(0, str::len);
    *parts += 1 + len as u64 / BYTES_PER_PART;
    if *parts > MAX_PARTS {
        return Err(beyond(&format!(
            "a list or map has more than {MAX_PARTS} parts"
        )));
    }
    if changes(value) {
        return Err(beyond("a list or map cannot hold a namespace or a loop"));
    }
    count_within(value, parts, levels)
}

/// Whether the contents of the value can change later.
fn changes(value: &Value) -> bool {
    let name = value.as_object().map_or("", |object| object.type_name());
    name.ends_with("::Namespace") || name.ends_with("::Loop")
}

fn beyond(bound: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, bound.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::jinja::{cause, environment, render};

    const SPACE: &str = "{% set ns = namespace(x=[1]) %}";
    const TOO_MANY_PARTS: &str = "a list or map has more than 1048576 parts";

    fn run(source: &str) -> Result<String, Error> {
        render(
            &environment(source)?,
            Value::from_pairs([("given", [1, 2])]),
        )
    }

    fn refused(source: &str) -> String {
        let error = run(source).expect_err(source);
        cause(&error).detail().unwrap_or_default().to_owned()
    }

    /// Repeats `body` `count` times, with a namespace in which `x` is a list.
    fn repeated(count: usize, body: &str, then: &str) -> String {
        format!(
            "{SPACE}{{% for i in range({count}) %}}{{% set ns.x = {body} %}}{{% endfor %}}{then}"
        )
    }

    #[test]
    fn values_that_double_are_stopped() {
        for body in [
            "[x, x]",
            "(x, x)",
            "{'a': x, 'b': x}",
            "{(x, x): 1}",
            "dict(a=x, b=x)",
            "x + x",
            "[x] * 2",
            "x | zip(x)",
        ] {
            let twice = format!("{{% set x = {body} %}}");
            let source = format!("{{% set x = [1] %}}{}{{{{ x }}}}", twice.repeat(60));
            assert_eq!(refused(&source), TOO_MANY_PARTS, "{source}");
        }
        for source in [
            &repeated(60, "[ns.x, ns.x]", ""),
            "{% macro f(x, n) %}{{ f([x, x], n - 1) if n else x }}{% endmacro %}{{ f([1], 60) }}",
            "{% set s = 'a' * 1000000 %}{% set x = [s] * 100 %}",
        ] {
            assert_eq!(refused(source), TOO_MANY_PARTS, "{source}");
        }
    }

    #[test]
    fn values_without_a_bottom_are_stopped() {
        for body in [
            "[ns.x]",
            "{'a': ns.x}",
            "ns.x | batch(1) | list",
            "[ns.x] | list",
        ] {
            let source = repeated(100_000, body, "");
            let error = refused(&source);
            assert_eq!(error, "a list or map has more than 200 levels", "{source}");
        }
        for body in ["ns", "[ns]", "{'a': ns}", "namespace(a=ns)", "[loop]"] {
            let source = repeated(1, body, "{{ ns }}");
            let error = refused(&source);
            assert!(
                error.contains("cannot hold a namespace or a loop"),
                "{source}: {error}"
            );
        }
    }

    #[test]
    fn iterators_of_iterators_are_lists() {
        for body in [
            "ns.x[0:]",
            "ns.x * 1",
            "ns.x | reverse",
            "ns.x | map('int')",
            "ns.x + []",
        ] {
            let source = repeated(10_000, body, "{{ ns.x | list }}");
            assert_eq!(run(&source).expect(&source), "[1]");
        }
    }

    #[test]
    fn reading_large_values_for_long_is_stopped() {
        let large = "{% set a = [['aaaa'] * 900] * 500 %}{% set b = [['aaaa'] * 900] * 500 %}\
                     {% set c = [b] %}";
        for body in ["a == b", "a < b", "a in c", "a is eq b"] {
            let source = format!(
                "{large}{{% for i in range(100000) %}}{{% set x = {body} %}}{{% endfor %}}"
            );
            let mut env = environment(&source).unwrap();
            add_filters(&mut env, Duration::from_millis(200));
            let error = render(&env, Value::UNDEFINED).expect_err(&source);
            assert_eq!(error.kind(), ErrorKind::OutOfFuel, "{source}");
        }
    }

    #[test]
    fn spaces_of_json_are_bounded() {
        let source = format!(
            "{SPACE}{{% set ns.x = [1] * 50000 %}}{{% for i in range(150) %}}{{% set ns.x = [ns.x] %}}{{% endfor %}}\
             {{{{ ns.x | tojson(indent=4) }}}}"
        );
        let error = refused(&source);
        assert!(error.contains("at most 16777216 spaces"), "{error}");
    }

    #[test]
    fn what_templates_rightly_do_stays_the_same() {
        for (source, expected) in [
            (
                "{{ [1, [2, (3, 4)], {'a': none}] }}",
                "[1, [2, (3, 4)], {'a': None}]",
            ),
            (
                "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
                "a1",
            ),
            (
                "{{ 1 ~ ((given | length or 3) ~ 4) }}{{ missing or given }}",
                "124[1, 2]",
            ),
            ("{{ range(5)[1:3] }}{{ given[::-1] }}", "[1, 2][2, 1]"),
            ("{{ given | map('string') | join('+') }}", "1+2"),
            ("{{ dict(a=1) | tojson(indent=none) }}", "{\"a\": 1}"),
            (
                "{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}{{ f(*given) }}{{ f(x=3, **{'y': 4}) }}",
                "121234",
            ),
            (
                "{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}",
                "<1>",
            ),
            (
                "{% for x in [[1, [2]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}",
                "12",
            ),
            (
                "{% block a %}{% if 1 < 2 < 3 and 'a' in 'abc' or missing %}{{ 'x' ~ 1 }}{% endif %}{% endblock %}",
                "x1",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for x in given if x > 1 %}{% set ns.n = ns.n + x %}{% else %}no{% endfor %}{{ ns.n }}",
                "2",
            ),
            (
                "{% for x in given %}{% if loop.first %}{% continue %}{% endif %}{{ loop.index }}{{ loop.cycle('a', 'b') }}{% endfor %}",
                "2b",
            ),
            (
                "{% set ns = namespace(l=[]) %}{% for x in range(1000) %}{% set ns.l = ns.l + [x] %}{% endfor %}{{ ns.l | length }}",
                "1000",
            ),
            (
                "{% filter upper %}{% with a = 'x' %}{{ a }}{% endwith %}{% endfilter %}",
                "X",
            ),
            (
                "{% set a, b = given %}{{ b }}{% set c %}{{ a }}{% endset %}{{ c }}",
                "21",
            ),
        ] {
            assert_eq!(run(source).expect(source), expected, "{source}");
        }
    }
}
