//! Writes rules as Lark.

use std::fmt::Write;

use super::{Expr, Rule};

/// Writes rules as Lark.
pub(super) struct Writer<'r, 'g> {
    rules: &'r [Rule<'g>],
    root: usize,
    /// What each rule is, if it becomes a terminal.
    terminals: Vec<Option<Width>>,
    lark: String,
    num_pieces: usize,
}

/// What a terminal can match. Lark's terminals must not match nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Nothing,
    NothingOrMore,
    More,
}

impl Width {
    fn then(self, other: Self) -> Self {
        match (self, other) {
            (Self::More, _) | (_, Self::More) => Self::More,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
            _ => Self::NothingOrMore,
        }
    }

    fn or(self, other: Self) -> Self {
        match self == other {
            true => self,
            false => Self::NothingOrMore,
        }
    }
}

impl<'r, 'g> Writer<'r, 'g> {
    pub(super) fn new(rules: &'r [Rule<'g>], root: usize) -> Self {
        let mut writer = Self {
            rules,
            root,
            terminals: vec![None; rules.len()],
            lark: String::new(),
            num_pieces: 0,
        };
        writer.find_terminals();
        writer
    }

    /// Finds the rules that never come back to themselves: those that refer to nothing, then those
    /// that refer to these, and so on.
    fn find_terminals(&mut self) {
        let mut num_left = Vec::with_capacity(self.rules.len());
        let mut named_by = vec![Vec::new(); self.rules.len()];
        for (rule_idx, rule) in self.rules.iter().enumerate() {
            let mut named = Vec::new();
            names(&rule.body, &mut named);
            num_left.push(named.len());
            for name in named {
                named_by[name].push(rule_idx);
            }
        }
        let all = 0..self.rules.len();
        let mut ready: Vec<usize> = all.filter(|rule_idx| num_left[*rule_idx] == 0).collect();
        while let Some(rule_idx) = ready.pop() {
            self.terminals[rule_idx] = self.width(&self.rules[rule_idx].body);
            for by in &named_by[rule_idx] {
                num_left[*by] -= 1;
                if num_left[*by] == 0 {
                    ready.push(*by);
                }
            }
        }
    }

    /// Returns what an expression can match, if it can be part of a terminal.
    fn width(&self, expr: &Expr) -> Option<Width> {
        match expr {
            Expr::Regex(_) => Some(Width::More),
            Expr::Rule(rule_idx) => self.terminals[*rule_idx],
            Expr::All(items) => items.iter().try_fold(Width::Nothing, |before, item| {
                Some(before.then(self.width(item)?))
            }),
            Expr::Any(items) => {
                let mut widths = items.iter().map(|item| self.width(item));
                let first = widths.next().unwrap_or(Some(Width::Nothing))?;
                widths.try_fold(first, |before, width| Some(before.or(width?)))
            }
            Expr::Repeat { of, least, most } => {
                let width = self.width(of)?;
                Some(match (width, *least, *most) {
                    (_, _, Some(0)) => Width::Nothing,
                    (Width::More, 0, _) => Width::NothingOrMore,
                    (width, _, _) => width,
                })
            }
        }
    }

    /// Writes all rules.
    pub(super) fn write(mut self) -> String {
        self.rule("start", &Expr::Rule(self.root));
        for (rule_idx, rule) in self.rules.iter().enumerate() {
            match self.terminals[rule_idx] {
                Some(_) => {
                    let mut line = format!("T{rule_idx}: ");
                    terminal(&rule.body, Place::Alternative, &mut line);
                    self.lark.push_str(&line);
                    self.lark.push('\n');
                }
                None => self.rule(&format!("r{rule_idx}"), &rule.body),
            }
        }
        self.lark
    }

    fn rule(&mut self, name: &str, body: &Expr) {
        let mut line = format!("{name}: ");
        self.expr(body, Place::Alternative, &mut line);
        line.push('\n');
        self.lark.push_str(&line);
    }

    /// Writes an expression of a rule. Pieces that can be terminals become some.
    fn expr(&mut self, expr: &Expr, place: Place, line: &mut String) {
        if let Some(width) = self.width(expr) {
            return self.piece(std::slice::from_ref(expr), width, line);
        }
        let needs_brackets = place.needs_brackets(expr);
        line.push_str(if needs_brackets { "(" } else { "" });
        match expr {
            Expr::Rule(rule_idx) => write!(line, "r{rule_idx}").expect("a String grows"),
            Expr::Any(items) => {
                for (item_idx, item) in items.iter().enumerate() {
                    line.push_str(if item_idx > 0 { " | " } else { "" });
                    self.expr(item, Place::Alternative, line);
                }
            }
            Expr::All(items) => self.sequence(items, line),
            Expr::Repeat { most: Some(0), .. } => line.push_str(NOTHING),
            Expr::Repeat { of, least, most } => {
                self.expr(of, Place::Repeated, line);
                write_repeat(*least, *most, line);
            }
            // Is always a piece.
            Expr::Regex(_) => {}
        }
        line.push_str(if needs_brackets { ")" } else { "" });
    }

    fn sequence(&mut self, mut items: &[Expr], line: &mut String) {
        while !items.is_empty() {
            let widths = items.iter().map_while(|item| self.width(item));
            let widths: Vec<Width> = widths.collect();
            let (piece, rest) = items.split_at(widths.len());
            if !piece.is_empty() {
                let width = widths.into_iter().fold(Width::Nothing, Width::then);
                self.piece(piece, width, line);
                line.push(' ');
            }
            items = rest;
            if let Some((item, rest)) = items.split_first() {
                self.expr(item, Place::Sequence, line);
                line.push(' ');
                items = rest;
            }
        }
    }

    /// Writes items that are one terminal.
    fn piece(&mut self, items: &[Expr], width: Width, line: &mut String) {
        if width == Width::Nothing {
            return line.push_str(NOTHING);
        }
        let name = format!("P{}", self.num_pieces);
        self.num_pieces += 1;
        let mut definition = format!("{name}: ");
        let place = match width {
            Width::NothingOrMore => Place::Sequence,
            _ if items.len() > 1 => Place::Sequence,
            _ => Place::Alternative,
        };
        for item in items {
            terminal(item, place, &mut definition);
            definition.push(' ');
        }
        match width {
            Width::NothingOrMore => {
                definition.push_str("& /(.|\\n)+/");
                write!(line, "({name})?").expect("a String grows");
            }
            _ => write!(line, "({name})").expect("a String grows"),
        }
        definition.push('\n');
        self.lark.push_str(&definition);
    }
}

/// What matches nothing.
const NOTHING: &str = "\"\"";

/// Where an expression stands, which decides whether it needs brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// One of several, or alone.
    Alternative,
    /// Beside others.
    Sequence,
    /// Before the sign of a repetition.
    Repeated,
}

impl Place {
    fn needs_brackets(self, expr: &Expr) -> bool {
        match expr {
            Expr::Any(_) => self != Self::Alternative,
            Expr::All(_) | Expr::Repeat { .. } | Expr::Rule(_) => self == Self::Repeated,
            Expr::Regex(_) => false,
        }
    }
}

/// Writes an expression of a terminal.
fn terminal(expr: &Expr, place: Place, line: &mut String) {
    let needs_brackets = place.needs_brackets(expr);
    line.push_str(if needs_brackets { "(" } else { "" });
    match expr {
        Expr::Regex(regex) => write!(line, "/{regex}/").expect("a String grows"),
        Expr::Rule(rule_idx) => write!(line, "T{rule_idx}").expect("a String grows"),
        Expr::All(items) if items.is_empty() => line.push_str(NOTHING),
        Expr::Any(items) => {
            for (item_idx, item) in items.iter().enumerate() {
                line.push_str(if item_idx > 0 { " | " } else { "" });
                terminal(item, Place::Alternative, line);
            }
        }
        Expr::All(items) => {
            for (item_idx, item) in items.iter().enumerate() {
                line.push_str(if item_idx > 0 { " " } else { "" });
                terminal(item, Place::Sequence, line);
            }
        }
        Expr::Repeat { most: Some(0), .. } => line.push_str(NOTHING),
        Expr::Repeat { of, least, most } => {
            terminal(of, Place::Repeated, line);
            write_repeat(*least, *most, line);
        }
    }
    line.push_str(if needs_brackets { ")" } else { "" });
}

/// Collects the rules that an expression names.
fn names(expr: &Expr, found: &mut Vec<usize>) {
    match expr {
        Expr::Regex(_) => {}
        Expr::Rule(rule_idx) => found.push(*rule_idx),
        Expr::Any(items) | Expr::All(items) => items.iter().for_each(|item| names(item, found)),
        Expr::Repeat { of, .. } => names(of, found),
    }
}

fn write_repeat(least: u32, most: Option<u32>, line: &mut String) {
    let text = match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    };
    line.push_str(&text);
}
