//! Reads the rules of a grammar in GBNF.

use std::collections::HashMap;
use std::fmt::{Display, Write};

use super::super::compiler::GrammarError;
use super::{Expr, Rule, is_of_name};

/// Maximum nesting of brackets.
const MAX_BRACKETS: usize = 90;
/// Maximum number of repetitions of one item in a row, such as `a?*`.
const MAX_REPEATS_IN_A_ROW: usize = 3;
/// Maximum number of repetitions that can be demanded or allowed.
const MAX_REPEATS: u32 = 10_000;

/// Any character.
const ANY: &str = "(.|\\n)";

/// Writes a character for a regular expression between slashes.
fn write_char(c: char, regex: &mut String) {
    match c {
        c if c.is_alphanumeric() => regex.push(c),
        c => write!(regex, "\\x{{{:X}}}", u32::from(c)).expect("a String grows"),
    }
}

/// Reads a grammar's rules.
pub(super) struct Parser<'g> {
    grammar: &'g str,
    at: usize,
    /// Each rule's index, by its name.
    names: HashMap<&'g str, usize>,
}

impl<'g> Parser<'g> {
    pub(super) fn new(grammar: &'g str) -> Self {
        Self {
            grammar,
            at: 0,
            names: HashMap::new(),
        }
    }

    pub(super) fn rules(mut self) -> Result<Vec<Rule<'g>>, GrammarError> {
        // A rule may be named before it is defined.
        let mut starts = Vec::new();
        self.skip_space();
        while self.at < self.grammar.len() {
            let start = self.at;
            match self.definition() {
                Some(name) => {
                    if self.names.insert(name, starts.len()).is_some() {
                        let message = format!("the rule '{name}' is defined twice");
                        return Err(self.error_at(start, message));
                    }
                    starts.push((name, self.at));
                }
                None => self.skip_token(),
            }
            self.skip_space();
        }
        self.at = 0;
        self.skip_space();
        let mut rules = Vec::with_capacity(starts.len());
        for (name, start) in starts {
            if self.definition() != Some(name) || self.at != start {
                return Err(self.unexpected("the name of a rule and '::='"));
            }
            self.skip_space();
            let body = self.alternatives(0)?;
            rules.push(Rule { name, body });
        }
        match self.peek() {
            None => Ok(rules),
            Some(_) => Err(self.unexpected("the name of a rule and '::='")),
        }
    }

    /// Takes the name and `::=` of a definition, if one is next.
    fn definition(&mut self) -> Option<&'g str> {
        let start = self.at;
        let name = self.name();
        self.skip_space();
        if !name.is_empty() && self.take("::=") {
            return Some(name);
        }
        self.at = start;
        None
    }

    fn is_definition(&mut self) -> bool {
        let start = self.at;
        let found = self.definition().is_some();
        self.at = start;
        found
    }

    /// Takes letters that can be a name.
    fn name(&mut self) -> &'g str {
        let rest = self.rest();
        let name = &rest[..rest.len() - rest.trim_start_matches(is_of_name).len()];
        self.at += name.len();
        name
    }

    /// Passes over a string, a class or one character.
    fn skip_token(&mut self) {
        let end = match self.peek() {
            Some(c @ ('"' | '\'')) => c,
            Some('[') => ']',
            Some(c) if is_of_name(c) => {
                self.name();
                return;
            }
            c => {
                self.at += c.map_or(0, char::len_utf8);
                return;
            }
        };
        self.at += 1;
        while let Some(c) = self.next() {
            match c {
                '\\' => {
                    self.next();
                }
                c if c == end => return,
                _ => {}
            }
        }
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expr, GrammarError> {
        let mut alternatives = vec![self.sequence(depth)?];
        while self.take("|") {
            self.skip_space();
            alternatives.push(self.sequence(depth)?);
        }
        Ok(match alternatives.len() {
            1 => alternatives.remove(0),
            _ => Expr::Any(alternatives),
        })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expr, GrammarError> {
        let mut items = Vec::new();
        loop {
            match self.peek() {
                None | Some('|' | ')') => break,
                Some(_) if self.is_definition() => break,
                Some(_) => {}
            }
            let item = self.item(depth)?;
            self.skip_space();
            items.push(self.repeated(item)?);
        }
        Ok(match items.len() {
            1 => items.remove(0),
            _ => Expr::All(items),
        })
    }

    fn item(&mut self, depth: usize) -> Result<Expr, GrammarError> {
        let start = self.at;
        match self.peek() {
            Some('(') => {
                if depth == MAX_BRACKETS {
                    let message = format!("brackets are nested more than {MAX_BRACKETS} deep");
                    return Err(self.error(message));
                }
                self.at += 1;
                self.skip_space();
                if self.rest().starts_with('=') {
                    return Err(self.error("looking ahead, '(=', is not supported"));
                }
                let inner = self.alternatives(depth + 1)?;
                match self.take(")") {
                    true => Ok(inner),
                    false => Err(self.error_at(start, "the '(' is never closed")),
                }
            }
            Some(quote @ ('"' | '\'')) => self.string(quote),
            Some('[') => self.class(),
            Some('.') => {
                self.at += 1;
                Ok(Expr::Regex(ANY.to_owned()))
            }
            Some('<' | '!') => {
                Err(self.error("tokens such as <…> are not supported: write their text in quotes"))
            }
            Some(c) if is_of_name(c) => {
                let name = self.name();
                match self.names.get(name) {
                    Some(rule_idx) => Ok(Expr::Rule(*rule_idx)),
                    None => self.split_name(start, name),
                }
            }
            _ => Err(self.unexpected("a string, a class, a name or a bracket")),
        }
    }

    /// Reads a name that no rule has as one without its dots, which then mean any character.
    fn split_name(&mut self, start: usize, name: &str) -> Result<Expr, GrammarError> {
        let short = name.split('.').next().unwrap_or_default();
        match self.names.get(short) {
            Some(rule_idx) => {
                self.at = start + short.len();
                Ok(Expr::Rule(*rule_idx))
            }
            None => Err(self.error_at(start, format!("the rule '{name}' is not defined"))),
        }
    }

    /// Reads what follows an item: how often it is repeated.
    fn repeated(&mut self, mut item: Expr) -> Result<Expr, GrammarError> {
        let mut num_times = 0;
        loop {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => (0, Some(0)),
                _ => return Ok(item),
            };
            num_times += 1;
            if num_times > MAX_REPEATS_IN_A_ROW {
                let message = format!("more than {MAX_REPEATS_IN_A_ROW} repetitions in a row");
                return Err(self.error(message));
            }
            let (least, most) = match self.peek() {
                Some('{') => self.bounds()?,
                _ => {
                    self.at += 1;
                    (least, most)
                }
            };
            self.skip_space();
            item = Expr::Repeat {
                of: Box::new(item),
                least,
                most,
            };
        }
    }

    /// Reads `{2}`, `{2,}`, `{,3}` or `{2,3}`.
    fn bounds(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let start = self.at;
        let rest = self.rest();
        let Some(inside) = rest[1..].split('}').next().filter(|_| rest.contains('}')) else {
            return Err(self.error_at(start, "the '{' is never closed"));
        };
        self.at += inside.len() + 2;
        let number = |text: &str| {
            let number = text.trim().parse::<u32>().ok();
            let number = number.filter(|_| text.trim().bytes().all(|byte| byte.is_ascii_digit()));
            match number {
                Some(number) if number <= MAX_REPEATS => Ok(number),
                Some(_) => Err(self.error_at(
                    start,
                    format!("at most {MAX_REPEATS} repetitions are taken"),
                )),
                None => Err(self.error_at(
                    start,
                    "between '{' and '}' there must be one number, or two with a comma",
                )),
            }
        };
        let (least, most) = match inside.split_once(',') {
            None => {
                let times = number(inside)?;
                (times, Some(times))
            }
            Some((least, most)) => (
                match least.trim() {
                    "" if most.trim().is_empty() => number(least)?,
                    "" => 0,
                    least => number(least)?,
                },
                match most.trim() {
                    "" => None,
                    most => Some(number(most)?),
                },
            ),
        };
        if most.is_some_and(|most| most < least) {
            return Err(self.error_at(start, "the most repetitions are fewer than the least"));
        }
        Ok((least, most))
    }

    fn string(&mut self, quote: char) -> Result<Expr, GrammarError> {
        let start = self.at;
        self.at += 1;
        let mut regex = String::new();
        loop {
            match self.next() {
                None | Some('\n') => return Err(self.error_at(start, "a string is never closed")),
                Some(c) if c == quote => break,
                Some('\\') => write_char(self.escape(start)?, &mut regex),
                Some(c) => write_char(c, &mut regex),
            }
        }
        Ok(match regex.is_empty() {
            true => Expr::All(Vec::new()),
            false => Expr::Regex(regex),
        })
    }

    fn class(&mut self) -> Result<Expr, GrammarError> {
        let start = self.at;
        self.at += 1;
        let is_negated = self.take("^");
        let mut regex = String::from(if is_negated { "[^" } else { "[" });
        let mut is_empty = true;
        loop {
            let first = match self.next() {
                None | Some('\n') => return Err(self.error_at(start, "a class is never closed")),
                Some(']') => break,
                Some('\\') => self.escape(start)?,
                Some(c) => c,
            };
            is_empty = false;
            write_char(first, &mut regex);
            let rest = self.rest();
            if !rest.starts_with('-') || rest.starts_with("-]") {
                continue;
            }
            self.at += 1;
            let last = match self.next() {
                None | Some('\n') => return Err(self.error_at(start, "a class is never closed")),
                Some('\\') => self.escape(start)?,
                Some(c) => c,
            };
            if last < first {
                let message = format!("the range '{first}-{last}' is in the wrong order");
                return Err(self.error_at(start, message));
            }
            regex.push('-');
            write_char(last, &mut regex);
        }
        regex.push(']');
        match (is_empty, is_negated) {
            (false, _) => Ok(Expr::Regex(regex)),
            (true, true) => Ok(Expr::Regex(ANY.to_owned())),
            (true, false) => Err(self.error_at(start, "a class has no characters")),
        }
    }

    /// Reads what a backslash begins.
    fn escape(&mut self, start: usize) -> Result<char, GrammarError> {
        let c = self.next().unwrap_or('\n');
        let num_digits = match c {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            '0' => return Ok('\0'),
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'v' => return Ok('\u{b}'),
            'e' => return Ok('\u{1b}'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c if c.is_ascii_punctuation() => return Ok(c),
            '\n' => return Err(self.error_at(start, "nothing follows a backslash")),
            c => return Err(self.error_at(start, format!("the escape '\\{c}' is not known"))),
        };
        let digits = self.rest().get(..num_digits).unwrap_or_default();
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        match code.and_then(char::from_u32) {
            Some(c) => {
                self.at += num_digits;
                Ok(c)
            }
            None => Err(self.error_at(
                start,
                format!("after '\\{c}' there must be {num_digits} hex digits of a character"),
            )),
        }
    }

    fn rest(&self) -> &'g str {
        &self.grammar[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, expected: &str) -> bool {
        let is_next = self.rest().starts_with(expected);
        if is_next {
            self.at += expected.len();
        }
        is_next
    }

    /// Passes over white space and comments.
    fn skip_space(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => return,
            }
        }
    }

    fn error(&self, message: impl Display) -> GrammarError {
        self.error_at(self.at, message)
    }

    /// Returns an error that names the line of a position.
    fn error_at(&self, at: usize, message: impl Display) -> GrammarError {
        let line = 1 + self.grammar[..at].matches('\n').count();
        GrammarError::new(format!("line {line}: {message}"))
    }

    fn unexpected(&self, expected: &str) -> GrammarError {
        match self.peek() {
            Some(c) => self.error(format!("'{c}' stands where {expected} is expected")),
            None => self.error(format!("the grammar ends where {expected} is expected")),
        }
    }
}
