//! Tests of which literals are read, and as what.

use super::*;

#[test]
fn literals_become_the_json_that_they_mean() {
    for (literal, expected) in [
        ("\"a\"", "\"a\""),
        ("'it\\'s \"so\"'", "\"it's \\\"so\\\"\""),
        (
            "\"l1\\nl2\\t\\\\\\x41\\u00e9\\U0001F642\"",
            "\"l1\\nl2\\t\\\\Aé🙂\"",
        ),
        ("\"\\ud83d\\ude42\"", "\"🙂\""),
        ("\"\\d\\/\"", "\"\\\\d/\""),
        ("'a\nb\u{1}'", "\"a\\nb\\u0001\""),
        ("''", "\"\""),
        ("0", "0"),
        ("-12", "-12"),
        ("+1", "1"),
        (".5", "0.5"),
        ("1.", "1.0"),
        ("1_000.5e-3", "1000.5e-3"),
        ("1E5", "1e5"),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        ("True", "true"),
        ("false", "false"),
        ("None", "null"),
        ("null", "null"),
        ("[]", "[]"),
        ("[ 1 , 'a' , [ ] , {} ]", "[1,\"a\",[],{}]"),
        ("(1, 2,)", "[1,2]"),
        ("{ 'a' : 1 , \"b\":[True,], }", "{\"a\":1,\"b\":[true]}"),
        ("['a:', 'b[']", "[\"a:\",\"b[\"]"),
        (
            "{'a': [[1], [2]], 'c': {'d': None}}",
            "{\"a\":[[1],[2]],\"c\":{\"d\":null}}",
        ),
    ] {
        let found = LiteralReader::read_all(literal);
        let found = found.unwrap_or_else(|| panic!("{literal} is refused"));
        assert_eq!(found, expected, "{literal}");
        serde_json::from_str::<serde_json::Value>(&found).expect("it is JSON");
    }
}

#[test]
fn pythons_other_ways_to_write_them_are_read_too() {
    for (literal, expected) in [
        // Three quotes, and quotes within them.
        ("\"\"\"New\nYork\"\"\"", "\"New\\nYork\""),
        ("'''a 'b' ''c'''", "\"a 'b' ''c\""),
        ("\"\"\"\"a\" b\"\"\"", "\"\\\"a\\\" b\""),
        ("\"\"\"\"\"\"", "\"\""),
        ("\"\"\"a\\\"\"\"\"", "\"a\\\"\""),
        ("{'a': '''b''', '''c''': 1}", "{\"a\":\"b\",\"c\":1}"),
        // Side by side, and added.
        ("\"New\" ' York'", "\"New York\""),
        ("(\"New\"\n \" York\")", "\"New York\""),
        ("'a' + \"b\" +\n'''c'''", "\"abc\""),
        ("[('a' 'b'), 'c' '']", "[\"ab\",\"c\"]"),
        ("{'a' 'b': 'c' + 'd'}", "{\"ab\":\"cd\"}"),
        // Prefixes.
        ("r'\\d\\'\"'", "\"\\\\d\\\\'\\\"\""),
        ("R\"\"\"\\\n\"\"\"", "\"\\\\\\n\""),
        ("u'a'", "\"a\""),
        ("f'a'", "\"a\""),
        ("[f\"a\", rf'\\w']", "[\"a\",\"\\\\w\"]"),
        ("{u'a': 1}", "{\"a\":1}"),
        // Escapes.
        ("'a\\\nb'", "\"ab\""),
        ("'\\101\\0\\0019'", "\"A\\u0000\\u00019\""),
        // Numbers.
        ("0x1F", "31"),
        ("-0XfF_fF", "-65535"),
        ("0o17", "15"),
        ("0b101", "5"),
        ("[0x0, 0x_1]", "[0,1]"),
        // Words in any case.
        ("[TRUE, FALSE, NULL, none]", "[true,false,null,null]"),
        // Brackets around one value, and keys that are no strings.
        ("(1)", "1"),
        ("((('a')))", "\"a\""),
        ("()", "[]"),
        ("('a',)", "[\"a\"]"),
        ("({'a': (1)})", "{\"a\":1}"),
        (
            "{1: 'a', True: 2, -.5: 3}",
            "{\"1\":\"a\",\"true\":2,\"-0.5\":3}",
        ),
    ] {
        let found = LiteralReader::read_all(literal);
        let found = found.unwrap_or_else(|| panic!("{literal} is refused"));
        assert_eq!(found, expected, "{literal}");
        serde_json::from_str::<serde_json::Value>(&found).expect("it is JSON");
    }
}

#[test]
fn what_is_no_literal_is_refused() {
    for literal in [
        "x",
        "007",
        "1__0",
        "_1",
        "1e",
        "--1",
        "1.2.3",
        "inf",
        "1e999",
        "0x",
        "0xg",
        "0x1__0",
        "0x+1",
        "0o8",
        "0b2",
        "1j",
        "b'a'",
        "f'{a}'",
        "'a' +",
        "'a' + 1",
        "'a' + + 'b'",
        "'a' 1",
        "'''a''",
        "\"\"\"a\"",
        "[1 2]",
        "[,]",
        "(,)",
        "{'a' 1}",
        "{'a': }",
        "{[1]: 2}",
        "{a: 1}",
        "(1]",
        "'\\ud83d'",
        "'\\ud83dx'",
        "'\\xg0'",
        "-",
        ".",
        "f(1)",
        "1 + 2",
        "Tru",
        "'\\U00110000'",
    ] {
        assert_eq!(LiteralReader::read_all(literal), None, "{literal}");
    }
    assert_eq!(LiteralReader::read_all(&"1".repeat(399)), None);
    let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(LiteralReader::read_all(&deep(64)).is_some());
    assert!(LiteralReader::read_all(&deep(65)).is_none());
}
