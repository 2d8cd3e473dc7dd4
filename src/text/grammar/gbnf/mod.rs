//! Grammars in GBNF, the notation of llama.cpp and xgrammar, which vLLM's clients send: converted to
//! Lark.
//!
//! ```text
//! # a comment
//! root  ::= "yes" | "no" ws list?       rules go on over lines, until the next name with ::=
//! list  ::= "(" [a-z]+ ("," [^0-9\n]){0,3} ")" | ""
//! ws    ::= [ \t]*
//! ```
//! A grammar is one of characters, Lark's are of rules over terminals. Rules that do not refer to
//! themselves, not even by way of others, become one terminal each, which is read as far as it
//! goes; so do the pieces of all other rules that such rules, strings and classes make up.

mod parser;
mod writer;

use std::collections::HashMap;

use super::compiler::GrammarError;
use parser::Parser;
use writer::Writer;

/// The rule with which a grammar begins.
const ROOT: &str = "root";

/// Whether a grammar is in this notation: a line of it begins with a rule's name and `::=`. No line
/// of Lark can.
pub(super) fn is_gbnf(grammar: &str) -> bool {
    let mut before = String::new();
    for line in grammar.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let name = line.trim_start_matches(is_of_name);
        let has_name = name.len() < line.len() || before.chars().all(is_of_name);
        if has_name && name.trim_start().starts_with("::=") {
            return true;
        }
        before.clear();
        before.push_str(line);
    }
    false
}

/// Converts a grammar to Lark.
///
/// # Errors
/// What is wrong with it, and in which line.
pub(super) fn to_lark(grammar: &str) -> Result<String, GrammarError> {
    let rules = Parser::new(grammar).rules()?;
    let names: HashMap<&str, usize> = rules
        .iter()
        .enumerate()
        .map(|(rule_idx, rule)| (rule.name, rule_idx))
        .collect();
    let Some(root) = names.get(ROOT) else {
        return Err(GrammarError::new(format!(
            "the grammar has no rule '{ROOT}', with which an answer begins"
        )));
    };
    Ok(Writer::new(&rules, *root).write())
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[derive(Debug)]
struct Rule<'g> {
    name: &'g str,
    body: Expr,
}

#[derive(Debug)]
enum Expr {
    /// Alternatives.
    Any(Vec<Expr>),
    /// One after another; nothing if there are none.
    All(Vec<Expr>),
    /// A string that is not empty, or a class of characters, as a regular expression.
    Regex(String),
    /// A rule, by its index.
    Rule(usize),
    Repeat {
        of: Box<Expr>,
        least: u32,
        most: Option<u32>,
    },
}

#[cfg(test)]
mod tests;
