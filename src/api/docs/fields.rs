//! The published table of supported and refused request fields (below); no code uses it. A test
//! compares it with the code, and updates it if `MEDGEMMA_UPDATE` is set:
//!
//! ```text
//! MEDGEMMA_UPDATE=1 cargo test --release --lib api::docs::fields
//! ```
//!
//! It keeps what the code does not know: the order of the lines, who invented a field, and fields
//! that are never sent.
//!
#![doc = include_str!("fields.md")]

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::api::docs::openapi::described;
    use crate::api::http::refused_fields::RefusedField;
    use crate::api::router::OPERATIONS;

    const PAGE: &str = "src/api/docs/fields.md";

    /// The state of a field that an answer lacks although OpenAI's has it.
    const NEVER_SENT: &str = "never sent";

    fn refused(field: &RefusedField) -> String {
        match field.neutral {
            [] => "refused".to_owned(),
            neutral => format!("refused unless `{}`", neutral.join("`, `")),
        }
    }

    /// A field's line of the page: its owner, as far as the code tells, and its state.
    struct Line {
        owner: &'static str,
        state: String,
    }

    /// Returns the lines of a schema's properties.
    fn served(schema: &Value) -> BTreeMap<String, Line> {
        let properties = schema["properties"].as_object().expect("properties");
        let line = |(name, property): (&String, &Value)| {
            let asks_nothing = property["enum"] == json!([null, false, "", [], {}]);
            let about = property["description"].as_str().unwrap_or_default();
            let line = Line {
                owner: match about.split_once("'s: ") {
                    Some(("vLLM", _)) => "vLLM",
                    Some(("This server", _)) => "this server",
                    _ => "OpenAI",
                },
                state: if asks_nothing { "refused" } else { "done" }.to_owned(),
            };
            (name.clone(), line)
        };
        properties.iter().map(line).collect()
    }

    /// Returns what the code does with each field: heading → field → line.
    fn by_code(page: &str) -> BTreeMap<String, BTreeMap<String, Line>> {
        let (document, bodies) = described(OPERATIONS);
        let schemas = &document["components"]["schemas"];
        let mut sections = BTreeMap::new();
        let mut names = BTreeSet::new();
        // Operations that take the same body share its section.
        for body in bodies.into_iter().filter(|body| names.insert(body.name)) {
            let mut fields = served(&schemas[body.name]);
            for field in &body.refused {
                let line = Line {
                    owner: "others",
                    state: refused(field),
                };
                fields.insert(field.name.to_owned(), line);
            }
            sections.insert(format!("POST {}", body.path), fields);
        }
        // The page chooses the objects that it shows.
        for heading in page.lines().filter_map(|line| line.strip_prefix("## ")) {
            if !heading.contains(' ') {
                let schema = &schemas[heading];
                assert!(schema.is_object(), "there is no schema '{heading}'");
                sections.insert(heading.to_owned(), served(schema));
            }
        }
        assert!(sections.len() > 12, "{} sections", sections.len());
        sections
    }

    /// Returns the page with the states of the code: known lines in their places, new ones at the
    /// ends of their tables, and none of fields that do not exist.
    fn updated(page: &str) -> String {
        let mut sections = by_code(page);
        let mut lines = Vec::new();
        let mut fields: Option<BTreeMap<String, Line>> = None;
        let mut seen = BTreeSet::new();
        let mut is_table = false;
        for line in page.lines().chain([""]) {
            if is_table && !line.starts_with('|') {
                for (name, new) in std::mem::take(&mut fields).into_iter().flatten() {
                    lines.push(format!("| `{name}` | {} | {} |", new.owner, new.state));
                }
            }
            is_table = line.starts_with('|');
            if let Some(heading) = line.strip_prefix("## ") {
                fields = sections.remove(heading);
                assert!(fields.is_some(), "there is no '{heading}'");
                seen.clear();
            }
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let (Some(left), [_, name, owner, state, _]) = (&mut fields, &cells[..]) else {
                lines.push(line.to_owned());
                continue;
            };
            let Some(name) = name
                .strip_prefix('`')
                .and_then(|name| name.strip_suffix('`'))
            else {
                lines.push(line.to_owned());
                continue;
            };
            assert!(seen.insert(name.to_owned()), "{name} stands twice");
            match left.remove(name) {
                Some(known) => lines.push(format!("| `{name}` | {owner} | {} |", known.state)),
                None if *state == NEVER_SENT => lines.push(line.to_owned()),
                None => {}
            }
        }
        assert!(sections.is_empty(), "the page lacks {:?}", sections.keys());
        lines.pop();
        lines.join("\n") + "\n"
    }

    #[test]
    fn the_page_says_of_each_field_what_the_code_does() {
        let page = include_str!("fields.md");
        let updated = updated(page);
        if std::env::var_os("MEDGEMMA_UPDATE").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
            fs::write(path, updated).expect("the page can be written");
            return;
        }
        for (line, expected) in page.lines().zip(updated.lines()) {
            assert_eq!(line, expected, "run it with MEDGEMMA_UPDATE=1");
        }
        assert_eq!(page.lines().count(), updated.lines().count());
    }
}
