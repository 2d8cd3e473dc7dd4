//! The chat templates that this program knows: the models' own, which end and make no more than
//! they should, whatever the messages.

/// BLAKE3 hashes of their exact sources, in hexadecimal.
const KNOWN: [&str; 1] = [
    // Gemma 3's, which MedGemma and the demo have too: tests/golden/make/chat_template.jinja, and
    // "chat_template" in src/registry/demo/tokenizer_config.json.
    "4df92a35314def747578d2abf98761e7ed8a4646e5fb7d8553406a7dbb6fdbd4",
];

/// Whether `source` is one of them, to the letter.
pub(super) fn is_known(source: &str) -> bool {
    let hash = blake3::hash(source.as_bytes()).to_hex();
    KNOWN.contains(&hash.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEMMA: &str = include_str!("../../tests/golden/make/chat_template.jinja");

    #[test]
    fn the_repositorys_templates_are_known_to_the_letter() {
        assert!(is_known(GEMMA));
        let demo = include_bytes!("../registry/demo/tokenizer_config.json");
        let demo: serde_json::Value = serde_json::from_slice(demo).unwrap();
        assert!(is_known(demo["chat_template"].as_str().unwrap()));
        for other in [&format!("{GEMMA} "), GEMMA.trim_end(), ""] {
            assert!(!is_known(other));
        }
    }
}
