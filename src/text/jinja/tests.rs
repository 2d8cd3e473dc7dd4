//! What templates may rely on, against Python's own ways.

use super::*;

fn render(source: &str) -> Result<String, Error> {
    let user = (
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
    );
    let context = Value::from_pairs([user, ("given", Value::from(vec![1, 2]))]);
    super::render(&environment(source, &BTreeMap::new())?, context)
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
    let error = render("{% if true %}{{ raise_exception('Roles <must> alternate') }}{% endif %}");
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

#[test]
fn spaces_of_json_are_bounded() {
    let source = "{% set ns = namespace(x=[1] * 50000) %}{% for i in range(150) %}\
                  {% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson(indent=4) }}";
    let error = render(source).unwrap_err().to_string();
    assert!(error.contains("at most 16777216 spaces"), "{error}");
}

#[test]
fn iterators_of_iterators_hold_what_lists_would() {
    for body in [
        "ns.x[0:]",
        "ns.x * 1",
        "ns.x | reverse",
        "ns.x | map('int')",
        "ns.x + []",
    ] {
        let source = format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(100) %}}\
             {{% set ns.x = {body} %}}{{% endfor %}}{{{{ ns.x | list }}}}"
        );
        assert_eq!(render(&source).expect(&source), "[1]");
    }
}

#[test]
fn what_templates_rightly_do_works() {
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
        assert_eq!(render(source).expect(source), expected, "{source}");
    }
}
