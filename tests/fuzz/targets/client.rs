//! What reads a client's bytes, one reader at a time: `FUZZ_TARGET` names it. They are one program,
//! since linking it takes longer than most of them need to find something.

#![no_main]

#[allow(dead_code)]
#[path = "../../it/api/server.rs"]
mod server;

mod grammars;
mod images;
mod requests;
mod texts;

/// The test's server looks for its files here.
mod golden {
    use std::path::{Path, PathBuf};

    pub(crate) fn path(relative: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../golden")
            .join(relative)
    }
}

/// Takes any bytes, and panics if what must hold does not.
type Reader = fn(&[u8]);

/// Every reader by its name; `tests/fuzz/run` has the same names.
const READERS: &[(&str, Reader)] = &[
    ("chat", requests::chat),
    ("completions", requests::completions),
    ("responses", requests::responses),
    ("messages", requests::messages),
    ("png", images::png),
    ("jpeg", images::jpeg),
    ("webp", images::webp),
    ("gif", images::gif),
    ("bmp", images::bmp),
    ("tiff", images::tiff),
    ("jpeg2000", images::jpeg2000),
    ("data_uri", images::data_uri),
    ("tool_calls", texts::tool_calls),
    ("schema", grammars::schema),
    ("regex", grammars::regex),
    ("lark", grammars::lark),
    ("gbnf", grammars::gbnf),
];

fn chosen() -> Reader {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a reader");
    let found = READERS.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("there is no reader {name}"))
        .1
}

static READER: std::sync::LazyLock<Reader> = std::sync::LazyLock::new(chosen);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| READER(bytes));
