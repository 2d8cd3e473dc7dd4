//! Chat templates that the program does not know, rendered by the program in processes of its own:
//! the same prompts as here, and whatever a template does, it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use medgemma::error::Error;
use medgemma::text::{ChatTemplate, Content, Message, NamedTokens, Role, Tokenizer};

use crate::golden;

/// Longer than any rendering may take, on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_medgemma"))
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(&golden::path("tokenizer/tokenizer.json")).expect("a tokenizer")
}

fn tokens() -> NamedTokens {
    NamedTokens(BTreeMap::from([(
        "bos_token".to_owned(),
        "<bos>".to_owned(),
    )]))
}

fn template(source: &str) -> Result<ChatTemplate, Error> {
    ChatTemplate::new(source, &tokens(), &tokenizer(), program())
}

fn user(text: &str) -> Vec<Message> {
    vec![Message {
        role: Role::User,
        content: Content::Text(text.to_owned()),
    }]
}

fn rendered(template: &ChatTemplate, text: &str) -> Result<String, String> {
    let begun = Instant::now();
    let rendered = template.render(&user(text));
    assert!(begun.elapsed() < BOUND, "{}", template.source());
    match rendered {
        Ok(prompt) => Ok(prompt.text),
        Err(Error::Template(message)) => Err(message),
        Err(other) => panic!("{}: {other:?}", template.source()),
    }
}

/// Runs `check` with each source on a thread of its own, a few at a time.
fn each(sources: &[String], check: impl Fn(&str) + Sync) {
    for sources in sources.chunks(4) {
        thread::scope(|scope| {
            for source in sources {
                scope.spawn(|| check(source));
            }
        });
    }
}

const SPACE: &str = "{% set ns = namespace(x=[1]) %}";

/// Repeats `body` `count` times, with a namespace in which `x` is a list.
fn repeated(count: usize, body: &str, then: &str) -> String {
    let set = format!("{{% set ns.x = {body} %}}");
    format!("{SPACE}{{% for i in range({count}) %}}{set}{{% endfor %}}{then}")
}

#[test]
fn a_template_that_makes_too_much_or_never_ends_is_refused() {
    let doubled = [
        "[x, x]",
        "(x, x)",
        "{'a': x, 'b': x}",
        "{(x, x): 1}",
        "dict(a=x, b=x)",
        "x + x",
        "[x] * 2",
        "x | zip(x)",
    ];
    let doubled = doubled.map(|body| {
        let twice = format!("{{% set x = {body} %}}");
        format!("{{% set x = [1] %}}{}{{{{ x }}}}", twice.repeat(60))
    });
    let mut sources = doubled.to_vec();
    sources.push(repeated(
        60,
        "[ns.x, ns.x]",
        "{{ ns.x == [ns.x] }}{{ ns.x }}",
    ));
    sources.push(repeated(60, "[ns.x, ns.x]", "{{ ns.x | tojson | length }}"));
    // Each contains itself.
    for body in ["ns", "[ns]", "{'a': ns}", "namespace(a=ns)"] {
        sources.push(repeated(1, body, "{{ ns }}"));
    }
    for source in [
        "{% macro f(x, n) %}{{ f([x, x], n - 1) if n else x }}{% endmacro %}{{ f([1], 60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'chat_template' %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}\
         {% endfor %}",
        "{{ 'x' * 9000000000 }}",
        "{{ range(10 ** 12) }}",
        "{% set x = 'a' * 1000000 %}{% for i in range(40) %}{{ x }}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}\
         {% if x.replace('a', 'b') %}{% endif %}{% endfor %}",
        "{{ [1] * 50000000 }}",
    ] {
        sources.push(source.to_owned());
    }
    each(&sources, |source| {
        let hostile = template(source).expect(source);
        assert!(hostile.waits());
        let refused = rendered(&hostile, "a").expect_err(source);
        assert!(!refused.is_empty() && refused.len() < 1000, "{refused}");
    });
}

#[test]
fn a_value_without_a_bottom_harms_only_its_own_process() {
    let mut sources = Vec::new();
    for body in [
        "[ns.x]",
        "{'a': ns.x}",
        "ns.x | batch(1) | list",
        "ns.x | reverse",
        "ns.x[0:]",
        "ns.x | map('int')",
        "ns.x + []",
    ] {
        for then in ["", "{{ ns.x }}"] {
            let source = format!(
                "{SPACE}{{% for i in range(5) %}}{{% for j in range(60000) %}}\
                 {{% set ns.x = {body} %}}{{% endfor %}}{{% endfor %}}{then}"
            );
            sources.push(source);
        }
    }
    each(&sources, |source| {
        let hostile = template(source).expect(source);
        // Some are within the bounds; printing the rest takes too much stack.
        let first = rendered(&hostile, "a");
        assert!(first.is_ok() || first.is_err_and(|refused| refused.len() < 1000));
    });
}

#[test]
fn a_template_that_nobody_can_use_is_refused_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat_template.jinja");
    let from_dir = || ChatTemplate::from_dir(dir.path(), &tokenizer(), program());
    assert!(from_dir().unwrap().is_none());
    for (source, expected) in [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "4000000 steps",
        ),
        ("{{ 'x' * 9000000000 }}", "4000000 steps"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "recursion limit",
        ),
        ("{% include 'chat_template' %}", "recursion limit"),
        ("{{ range(10 ** 12) }}", "too many elements"),
        ("{{ nothing() }}", "nothing"),
        ("{{ messages[0].content.nothing() }}", "nothing"),
        ("{{ 1 + 'a' }}", "unsupported types"),
        ("{% if %}", "the chat template is broken: "),
    ] {
        fs::write(&file, source).unwrap();
        let error = from_dir().unwrap_err();
        let names_it = matches!(&error, Error::Checkpoint { file: named, .. } if *named == file);
        assert!(names_it, "{error:?}");
        let error = error.to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
    for source in [
        "{{ raise_exception('A system message must come first') }}",
        "a",
    ] {
        fs::write(&file, source).unwrap();
        assert!(from_dir().unwrap().is_some());
    }
    // Without the program, it is not the template that is at fault.
    let nowhere = Path::new("/nowhere/medgemma");
    let error = ChatTemplate::from_dir(dir.path(), &tokenizer(), nowhere).unwrap_err();
    assert!(matches!(&error, Error::Config(_)), "{error:?}");
}

#[test]
fn a_template_of_the_operators_may_name_tokens_and_a_broken_one_is_a_wrong_setting() {
    let from_flag = |given| ChatTemplate::from_flag(given, &tokens(), &tokenizer(), program());
    let error = from_flag("{% if %}").unwrap_err();
    assert!(
        matches!(&error, Error::Config(text) if text.contains("broken")),
        "{error}"
    );
    let given = from_flag("{{ bos_token }}x").unwrap();
    assert_eq!(rendered(&given, "a").as_deref(), Ok("<bos>x"));
}

#[test]
fn what_failed_once_is_rendered_the_next_time() {
    let sometimes = "{% set ns = namespace(x=[1]) %}{% set text = messages[0].content %}\
                     {% if text == 'cycle' %}{% set ns.x = ns %}{{ ns }}{% endif %}\
                     {% if text == 'no' %}{{ raise_exception('Not this.') }}{% endif %}\
                     {{ bos_token }}{{ text }}";
    let template = template(sometimes).unwrap();
    for _ in 0..2 {
        assert_eq!(rendered(&template, "a").as_deref(), Ok("<bos>a"));
        assert_eq!(rendered(&template, "no").unwrap_err(), "Not this.");
        let refused = rendered(&template, "cycle").unwrap_err();
        assert!(refused.contains("too deep a stack"), "{refused}");
    }
    thread::scope(|scope| {
        for number in 0..8 {
            let template = &template;
            scope.spawn(move || {
                let expected = format!("<bos>{number}");
                assert_eq!(rendered(template, &number.to_string()), Ok(expected));
            });
        }
    });
}
