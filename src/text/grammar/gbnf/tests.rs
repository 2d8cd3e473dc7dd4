//! Tests of grammars in GBNF: what they become is judged by what texts it takes, over single bytes.

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};
use proptest::prelude::*;

use super::super::lark::check_lark;
use super::*;

/// Whether the grammar takes `text` as a whole.
fn takes(grammar: &str, text: &str) -> bool {
    let lark = to_lark(grammar).unwrap_or_else(|error| panic!("{error:?} in {grammar}"));
    check_lark(&lark).expect("no deeper than Lark may be");
    let env = ApproximateTokEnv::single_byte_env();
    let factory = ParserFactory::new_simple(&env).expect("a factory");
    let parser = factory.create_parser(TopLevelGrammar::from_lark(lark.clone()));
    let parser = parser.unwrap_or_else(|error| panic!("{error} in {lark}"));
    let mut matcher = Matcher::new(Ok(parser));
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    let num_valid = matcher.validate_tokens(&bytes).expect("no fault");
    if num_valid < bytes.len() {
        return false;
    }
    matcher.consume_tokens(&bytes).expect("they are valid");
    matcher.is_accepting().expect("no fault")
}

/// The grammar of JSON that llama.cpp ships, in our words.
const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

#[test]
fn grammars_take_what_they_say() {
    for (grammar, good, bad) in [
        // Choices.
        (
            r#"root ::= "Hello" | "Hi" | "Hey""#,
            &["Hello", "Hi", "Hey"][..],
            &["", "H", "Hell", "HelloHi"][..],
        ),
        // A sentence with a rule in it.
        (
            "root ::= \"The capital of \" country \" is \" city \".\"\n\
             country ::= \"England\" | \"France\"\ncity ::= \"London\" | \"Paris\"",
            &["The capital of France is Paris."],
            &[
                "The capital of Rome is Paris.",
                "The capital of France is Paris",
            ],
        ),
        // vLLM's own example.
        (
            "\n        root ::= select_statement\n\n        select_statement ::= \"SELECT \" column \" from \" table \" where \" condition\n\n        column ::= \"col_1 \" | \"col_2 \"\n\n        table ::= \"table_1 \" | \"table_2 \"\n\n        condition ::= column \"= \" number\n\n        number ::= \"1 \" | \"2 \"\n    ",
            &["SELECT col_1  from table_2  where col_2 = 1 "],
            &["SELECT col_3  from table_2  where col_2 = 1 ", "SELECT "],
        ),
        // Like an address, a telephone number, a date.
        (
            "root ::= name \"@\" name \".\" [a-z]{2,3}\nname ::= [a-zA-Z0-9] [a-zA-Z0-9._-]*",
            &["a.b@example.org", "a@b.de"],
            &["a@b", "@b.de", "a@b.d", "a@b.info"],
        ),
        (
            r#"root ::= "(" [0-9]{3} ") " [0-9]{3} "-" [0-9]{4}"#,
            &["(123) 456-7890"],
            &["(12) 456-7890", "(123) 456-78901"],
        ),
        (
            "root ::= year \"-\" month\nyear ::= [0-9]{4}\nmonth ::= \"0\" [1-9] | \"1\" [0-2]",
            &["2024-01", "1999-12"],
            &["2024-13", "2024-00", "24-01"],
        ),
        // Like JSON, of a form.
        (
            "root ::= \"{\" \"\\\"name\\\": \" string \", \\\"age\\\": \" [0-9]+ \"}\"\nstring ::= \"\\\"\" [^\"]* \"\\\"\"",
            &[
                "{\"name\": \"Ann\", \"age\": 7}",
                "{\"name\": \"\", \"age\": 70}",
            ],
            &["{\"name\": \"Ann\"}", "{\"name\": \"Ann\", \"age\": }"],
        ),
        // JSON itself.
        (
            JSON,
            &[
                "{}",
                "{\"a\": [1, -2.5e3, \"x\\n\\u00e9\", {\"b\": null}], \"c\": true}",
                "{ \"a\": {\n\t\"b\": []} }",
            ],
            &[
                "",
                "[]",
                "{\"a\"}",
                "{\"a\": 01}",
                "{\"a\": [1,]}",
                "{\"a\": 1",
            ],
        ),
        // Arithmetic.
        (
            "root ::= expr\nexpr ::= term ([-+] term)*\nterm ::= factor ([*/] factor)*\nfactor ::= [0-9]+ | \"(\" expr \")\"",
            &["1", "1+2*(3-40)/5", "((7))"],
            &["", "1+", "(1", "1 + 2", "a"],
        ),
        (
            "root ::= root \"+\" num | num\nnum ::= [0-9]+",
            &["1", "12+3+45"],
            &["+", "1+", "1++2"],
        ),
        // Bounds.
        (
            "root ::= \"a\"{2} \"b\"{1,} \"c\"{,2} \"d\"{0} (\"e\" | \"f\"){1,2}?",
            &["aab", "aabbbcc", "aabe", "aabcfe"],
            &["ab", "aa", "aabccc", "aabd", "aabeee"],
        ),
        // Escapes, and characters beyond ASCII.
        (
            r#"root ::= "\x41\u00e9\U0001F600\t\n\r\\\"\/" [\]\-\\^] [a-] [äöü🫁-🫂]"#,
            &["Aé😀\t\n\r\\\"/]-ä", "Aé😀\t\n\r\\\"/^a🫂"],
            &["Aé😀\t\n\r\\\"/aab", "A"],
        ),
        ("root ::= . .", &["ab", "é\n", "🫁/"], &["a", "abc", ""]),
        ("root ::= [^a\\n]", &["b", "/", "]", "é"], &["a", "\n", ""]),
        ("root ::= [^]", &["b", "\n"], &["", "aa"]),
        ("root ::= 'it' \"'s\"", &["it's"], &["its"]),
        // What may be nothing.
        (
            "root ::= \"\" | \"a\" b\nb ::= \"b\"?",
            &["", "a", "ab"],
            &["b"],
        ),
        (
            "root ::= ws e ws\nws ::= [ ]*\ne ::= \"(\" ws e? ws \")\" |\n",
            &["", "  ", " ( ( ) ) ", "()"],
            &["(", ")("],
        ),
        (
            "root ::= a{0} \"x\" (a | \"\") none\na ::= \"(\" a \")\" | \".\"\nnone ::= \"\"",
            &["x", "x(.)", "x."],
            &["", ".x", "x("],
        ),
        // Layout: comments, names of all kinds, alternatives over lines, rules in any order.
        (
            "# first\nmy-rule.2 ::= \"a#\" # \"b\"\n  | other_rule\n\nother_rule\n::= \"c\" root2\nroot2 ::= \"d\"\nroot ::= (\n my-rule.2 # in brackets\n | \"e\" )\r\n",
            &["a#", "cd", "e"],
            &["a", "b", "c", "root"],
        ),
        ("root ::= ab.\nab ::= \"ab\"", &["abx"], &["ab"]),
        ("root ::= \"a ::= b\"", &["a ::= b"], &["a"]),
    ] {
        assert!(is_gbnf(grammar), "{grammar}");
        for text in good {
            assert!(takes(grammar, text), "{text:?} in {grammar}");
        }
        for text in bad {
            assert!(!takes(grammar, text), "{text:?} in {grammar}");
        }
    }
}

#[test]
fn notations_are_told_apart() {
    for lark in [
        "start: \"a\"",
        "start: \"::=\" b\nb: /root ::= x/",
        "// root ::= \"a\"\nstart: \"a\"",
        "# root ::= \"a\"\nstart: \"a\"",
        "",
        "root = \"a\"",
    ] {
        assert!(!is_gbnf(lark), "{lark}");
    }
    for gbnf in [
        "root ::= x",
        "\n\n  a-b.c::=",
        "root # the first\n ::= \"a\"",
        "x\n::=",
    ] {
        assert!(is_gbnf(gbnf), "{gbnf}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (grammar, expected) in [
        (
            "root ::= \"a\"\nb ::= c",
            "line 2: the rule 'c' is not defined",
        ),
        ("a ::= \"a\"", "no rule 'root'"),
        (
            "root ::= \"a\"\n\nroot ::= \"b\"",
            "line 3: the rule 'root' is defined twice",
        ),
        ("root ::= \"a\n\"", "line 1: a string is never closed"),
        ("root ::= \"a\" |\n[a-z", "line 2: a class is never closed"),
        ("root ::=\n(\"a\"\n", "line 2: the '(' is never closed"),
        (
            "root ::= \"a\")",
            "line 1: ')' stands where the name of a rule",
        ),
        ("root ::= \"a\"{1", "line 1: the '{' is never closed"),
        ("root ::= \"a\"{x}", "line 1: between '{' and '}'"),
        ("root ::= \"a\"{,}", "line 1: between '{' and '}'"),
        ("root ::= \"a\"{+1}", "line 1: between '{' and '}'"),
        ("root ::= \"a\"{3,2}", "line 1: the most repetitions"),
        (
            "root ::= \"a\"{1000000}",
            "line 1: at most 10000 repetitions",
        ),
        (
            "root ::= \"a\"?*+?",
            "line 1: more than 3 repetitions in a row",
        ),
        ("root ::= [z-a]", "line 1: the range 'z-a'"),
        ("root ::= []", "line 1: a class has no characters"),
        ("root ::= \"\\q\"", "line 1: the escape '\\q'"),
        ("root ::= \"\\x4\"", "line 1: after '\\x'"),
        ("root ::= \"\\ud83d\"", "line 1: after '\\u'"),
        ("root ::= \"\\uéé\"", "line 1: after '\\u'"),
        ("root ::= \"\\", "line 1: nothing follows a backslash"),
        ("root ::= (= \"a\")", "line 1: looking ahead"),
        ("root ::= <think>", "line 1: tokens such as"),
        ("root ::= * \"a\"", "line 1: '*' stands where"),
        ("x root ::= \"a\"", "line 1: 'x' stands where"),
        ("root ::= /a/", "line 1: '/' stands where"),
    ] {
        let error = to_lark(grammar).expect_err(grammar);
        assert!(
            error.message.contains(expected),
            "{grammar}: {}",
            error.message
        );
    }
    let nested = |depth| format!("root ::= {}\"a\"{}", "(".repeat(depth), ")".repeat(depth));
    assert!(takes(&nested(90), "a"));
    assert!(to_lark(&nested(91)).is_err());
}

#[test]
fn deep_grammars_are_no_deeper_than_larks_may_be() {
    // Brackets that none can be left out of, with what is repeated most.
    let nested = |inner: &str, depth| {
        format!(
            "root ::= {}{inner}{}\na ::= \"b\" a | \"c\"",
            "(\"x\" | ".repeat(depth),
            ")?".repeat(depth)
        )
    };
    for inner in ["\"a\"", "a"] {
        let lark = to_lark(&nested(inner, 90)).expect("deep, but not too deep");
        assert_eq!(check_lark(&lark), Ok(()));
    }
    let chain = |num_links: usize| {
        let links = (0..num_links).map(|n| format!("r{n} ::= \"a\" r{}\n", n + 1));
        format!(
            "root ::= r0\n{}r{num_links} ::= \"z\"\n",
            links.collect::<String>()
        )
    };
    assert_eq!(check_lark(&to_lark(&chain(400)).expect("sound")), Ok(()));
    // The conversion itself takes any depth.
    let lark = to_lark(&chain(10_000)).expect("sound");
    assert!(check_lark(&lark).is_err());
    let begun = std::time::Instant::now();
    to_lark(&format!("root ::= {}", "\"a\" ".repeat(60_000))).expect("sound");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

proptest! {
    #[test]
    fn any_text_is_read_to_its_end(
        text in "(root|a|b| ::= |\"|'|\\[|\\]|\\(|\\)|\\{|\\}|1|,|\\||\\*|\\?|\\.|-|\\^|\\\\|\\\\x41|#|\n| |é|<|=){0,40}",
    ) {
        if let Ok(lark) = to_lark(&text) {
            let _ = check_lark(&lark);
        }
        is_gbnf(&text);
    }
}
