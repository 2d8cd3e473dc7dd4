//! Checks Lark grammars before compilation: the depth of their rules and brackets.

use std::collections::HashMap;

use super::compiler::GrammarError;
use super::depth::walk_depth;

/// Maximum length of a chain of rules and terminals that refer to one another.
const MAX_CHAIN: usize = 500;
/// Maximum nesting of brackets.
const MAX_BRACKETS: usize = 100;

/// Checks a grammar without compiling it.
///
/// # Errors
/// If a chain of its rules is too long, or its brackets are nested too deeply.
pub(super) fn check_lark(grammar: &str) -> Result<(), GrammarError> {
    let tokens = tokens(grammar);
    let mut depth = 0_usize;
    for token in &tokens {
        match token {
            Token::Sign(b'(' | b'[' | b'{') => depth += 1,
            Token::Sign(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Err(GrammarError::new(format!(
                "the grammar's brackets are nested more than {MAX_BRACKETS} deep"
            )));
        }
    }
    let (starts, edges) = references(&tokens);
    if walk_depth(edges.len(), starts, &edges, MAX_CHAIN) > MAX_CHAIN {
        return Err(GrammarError::new(format!(
            "more than {MAX_CHAIN} rules or terminals name one another in a chain"
        )));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'g> {
    /// The name of a rule or a terminal.
    Name(&'g str),
    /// One byte of anything else. Strings, regular expressions and comments are left out.
    Sign(u8),
}

/// Returns which definition refers to which: the nodes in order, and the successors of each.
fn references(tokens: &[Token<'_>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let definitions: Vec<usize> = (0..tokens.len())
        .filter(|at| is_definition(&tokens[*at..]))
        .collect();
    let mut nodes = HashMap::new();
    for at in &definitions {
        if let Token::Name(name) = tokens[*at] {
            let num_nodes = nodes.len();
            nodes.entry(name).or_insert(num_nodes);
        }
    }
    let mut edges = vec![Vec::new(); nodes.len()];
    let ends = definitions.iter().skip(1).copied();
    for (start, end) in definitions.iter().zip(ends.chain([tokens.len()])) {
        let Token::Name(name) = tokens[*start] else {
            continue;
        };
        let named = tokens[start + 1..end]
            .iter()
            .filter_map(|token| match token {
                Token::Name(name) => nodes.get(name).copied(),
                Token::Sign(_) => None,
            });
        edges[nodes[name]].extend(named);
    }
    let mut starts: Vec<usize> = nodes.get("start").copied().into_iter().collect();
    starts.extend(0..edges.len());
    (starts, edges)
}

/// Whether a definition begins here: a name, an optional priority or attributes, and a colon.
fn is_definition(tokens: &[Token<'_>]) -> bool {
    let Some((Token::Name(_), rest)) = tokens.split_first() else {
        return false;
    };
    let mut depth = 0_usize;
    for token in rest {
        match token {
            Token::Sign(b'[' | b'{' | b'(') => depth += 1,
            Token::Sign(b']' | b'}' | b')') if depth > 0 => depth -= 1,
            Token::Sign(b':') if depth == 0 => return true,
            _ if depth > 0 => {}
            // `name.5:`
            Token::Sign(b'.' | b'-' | b'0'..=b'9') => {}
            _ => return false,
        }
    }
    false
}

fn tokens(grammar: &str) -> Vec<Token<'_>> {
    let bytes = grammar.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        at += 1;
        match byte {
            b'"' => at = behind(bytes, at, b'"'),
            b'/' if bytes.get(at) == Some(&b'/') => at = line_end(bytes, at),
            b'/' => at = behind(bytes, at, b'/'),
            b'#' => at = line_end(bytes, at),
            _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                let len = bytes[at..].iter().take_while(|byte| is_name(byte)).count();
                tokens.push(Token::Name(&grammar[at - 1..at + len]));
                at += len;
            }
            _ if byte.is_ascii_whitespace() => {}
            _ => tokens.push(Token::Sign(byte)),
        }
    }
    tokens
}

/// Returns the position after the next unescaped `end`. Neither strings nor regular expressions
/// extend over a line end, so an unclosed one ends there.
fn behind(bytes: &[u8], mut at: usize, end: u8) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            b'\n' => return at,
            _ if byte == end => return at,
            _ => {}
        }
    }
    bytes.len()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    let len = bytes[at..]
        .iter()
        .take_while(|byte| **byte != b'\n')
        .count();
    at + len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(num_links: usize) -> String {
        let links = (0..num_links).map(|n| format!("r{n}: \"a{n}\" | r{}\n", n + 1));
        let links: String = links.collect();
        format!("start: r0\n{links}r{num_links}: \"z\"\n")
    }

    #[test]
    fn chains_of_rules_and_terminals_have_a_bound() {
        assert_eq!(check_lark(&chain(MAX_CHAIN - 2)), Ok(()));
        let error = check_lark(&chain(MAX_CHAIN - 1)).expect_err("one too many");
        assert!(error.message.contains("chain"), "{error:?}");
        let terminals = (0..2_000).map(|n| format!("T{n}.2: \"a\" T{}\n", n + 1));
        let terminals: String = terminals.collect();
        assert!(check_lark(&format!("start: T0\n{terminals}T2000: /z/\n")).is_err());
        // In reverse order.
        let mut lines: Vec<_> = (0..2_000).map(|n| format!("r{n}: r{}\n", n + 1)).collect();
        lines.reverse();
        assert!(check_lark(&format!("start: r0\n{}", lines.concat())).is_err());
        assert!(
            check_lark(&format!(
                "start: {}\"x\"{}",
                "(".repeat(200),
                ")".repeat(200)
            ))
            .is_err()
        );
    }

    #[test]
    fn what_is_wide_or_recursive_is_taken() {
        let wide: String = (0..3_000).map(|n| format!("r{n}: \"a{n}\"\n")).collect();
        let all: Vec<_> = (0..3_000).map(|n| format!("r{n}")).collect();
        assert_eq!(
            check_lark(&format!("start: {}\n{wide}", all.join(" | "))),
            Ok(())
        );
        let recursive = "start: e\n?e: e \"+\" t | t // e: t: e:\nt.5: \"(\" e \")\" | /[a-z:\\/]+/ | X[capture=\"x\"]\nX: \"\\\"\" \"y:\"\n";
        assert_eq!(check_lark(recursive), Ok(()));
        let (_, edges) = references(&tokens(recursive));
        assert_eq!(edges.len(), 4, "start, e, t and X: {edges:?}");
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        for text in [
            "",
            "\"",
            "/",
            "a",
            "a:",
            "\\",
            "\"\\",
            "é: /é",
            "a[",
            "a.5",
            "%json {\"a\": 1}",
        ] {
            assert_eq!(check_lark(text), Ok(()), "{text}");
        }
    }
}
