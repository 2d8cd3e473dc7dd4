//! The table of request fields (below). Its tests compare it with the code.
//!
#![doc = include_str!("fields.md")]

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use crate::api::docs::openapi::described;
    use crate::api::http::refused_fields::RefusedField;
    use crate::api::router::OPERATIONS;

    /// Parses the page: heading → field → state.
    fn page() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
        let mut page = BTreeMap::new();
        for section in include_str!("fields.md").split("\n## ").skip(1) {
            let (heading, text) = section.split_once('\n').expect("a heading has a line");
            let mut fields = BTreeMap::new();
            for line in text.lines().filter(|line| line.starts_with("| `")) {
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                let [_, name, _, state, _] = cells[..] else {
                    panic!("{heading}: three cells in {line}");
                };
                let before = fields.insert(name.trim_matches('`'), state);
                assert!(before.is_none(), "{heading}: {name} stands twice");
            }
            page.insert(heading.trim_matches('`'), fields);
        }
        page
    }

    fn refused(field: &RefusedField) -> String {
        match field.neutral {
            [] => "refused".to_owned(),
            neutral => format!("refused unless `{}`", neutral.join("`, `")),
        }
    }

    /// Returns the state of each property of a schema.
    fn served(schema: &Value) -> BTreeMap<String, String> {
        let properties = schema["properties"].as_object().expect("properties");
        let state = |(name, property): (&String, &Value)| {
            let asks_nothing = property["enum"] == json!([null, false, "", [], {}]);
            let state = if asks_nothing { "refused" } else { "done" };
            (name.clone(), state.to_owned())
        };
        properties.iter().map(state).collect()
    }

    /// Returns the page's fields without those marked "never sent", which do not exist in the code.
    fn claimed(fields: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
        let claims = fields.iter().filter(|(_, state)| **state != "never sent");
        let owned = claims.map(|(name, state)| ((*name).to_owned(), (*state).to_owned()));
        owned.collect()
    }

    fn check(heading: &str, page: &BTreeMap<String, String>, code: &BTreeMap<String, String>) {
        let wrong: Vec<_> = code
            .iter()
            .filter(|(name, state)| page.get(*name) != Some(*state))
            .map(|(name, state)| format!("| `{name}` | … | {state} |"))
            .collect();
        assert!(wrong.is_empty(), "'{heading}' lacks:\n{}", wrong.join("\n"));
        for (name, state) in page {
            assert!(
                code.contains_key(name),
                "'{heading}': {name} is not {state}"
            );
        }
    }

    #[test]
    fn the_page_says_of_each_request_field_what_the_code_does() {
        let page = page();
        let (document, bodies) = described(OPERATIONS);
        for body in bodies {
            let heading = format!("POST {}", body.path);
            let fields = page.get(heading.as_str());
            let fields = fields.unwrap_or_else(|| panic!("the page has no '{heading}'"));
            let mut code = served(&document["components"]["schemas"][body.name]);
            for field in &body.refused {
                code.insert(field.name.to_owned(), refused(field));
            }
            check(&heading, &claimed(fields), &code);
        }
    }

    #[test]
    fn the_page_says_of_each_object_what_it_has() {
        let page = page();
        let (document, _) = described(OPERATIONS);
        let schemas = document["components"]["schemas"].as_object();
        let schemas = schemas.expect("schemas");
        let mut num_objects = 0;
        for (heading, fields) in page.iter().filter(|(heading, _)| !heading.contains(' ')) {
            let schema = schemas.get(*heading);
            let schema = schema.unwrap_or_else(|| panic!("there is no schema '{heading}'"));
            let code = served(schema);
            check(heading, &claimed(fields), &code);
            for name in code.keys() {
                let state = fields.get(name.as_str()).copied();
                assert_ne!(state, Some("never sent"), "{heading}: {name} is sent");
            }
            num_objects += 1;
        }
        assert!(num_objects >= 6, "the page has {num_objects} objects");
    }
}
