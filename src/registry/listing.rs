//! The named models as a table for people.

use std::fmt::Write;

use super::catalog::{Catalog, CatalogEntry};

/// One line per model: name, size, context, whether it takes images and thinks, hub id.
pub fn listing(catalog: &Catalog) -> String {
    let mut rows = vec![[
        "NAME".to_owned(),
        "SIZE".to_owned(),
        "CONTEXT".to_owned(),
        "IMAGES".to_owned(),
        "THINKS".to_owned(),
        "FROM".to_owned(),
    ]];
    rows.extend(catalog.models().map(|(name, entry)| {
        match entry {
            CatalogEntry::BuiltIn => [
                name.to_owned(),
                "tiny".to_owned(),
                "-".to_owned(),
                "yes".to_owned(),
                "never".to_owned(),
                "built in; its words are noise".to_owned(),
            ],
            CatalogEntry::Hub(model) => [
                name.to_owned(),
                parameters(model.config.num_parameters()),
                model.config.text.max_position_embeddings.to_string(),
                if model.config.vision.is_some() {
                    "yes"
                } else {
                    "no"
                }
                .to_owned(),
                model.thinking.to_string(),
                model.hub.clone(),
            ],
        }
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}  ").expect("strings take all that is written");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// 4300079472 as 4.3 B, 268098176 as 268 M.
fn parameters(count: u64) -> String {
    if count < 950_000_000 {
        return format!("{} M", (count + 500_000) / 1_000_000);
    }
    format!("{:.1} B", count as f64 / 1e9)
}
