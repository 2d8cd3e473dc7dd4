//! Checkpoints as other programs leave them, served like those of the hub.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Server, copy_of};

const FILES: [&str; 2] = ["tests/golden/models/text27b", "tests/golden/tokenizer"];

fn serve(dir: &Path) -> Server {
    Server::start(
        &[
            dir.to_str().unwrap(),
            "--served-model-name",
            "t",
            "--log-level",
            "info",
        ],
        &[],
    )
}

/// The answer to one chat: its text, and the number of the prompt's tokens.
fn chat(server: &Server) -> (String, u64) {
    let head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json";
    let body = json!({
        "model": "t",
        "messages": [{"role": "user", "content": "The patient is a man of 64 years."}],
        "max_tokens": 8,
        "temperature": 0,
    });
    let (status, answer) = server.request(head, &body.to_string());
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let text = answer["choices"][0]["message"]["content"].as_str();
    let num_tokens = answer["usage"]["prompt_tokens"].as_u64();
    (text.unwrap_or_default().to_owned(), num_tokens.unwrap())
}

/// Removes a field of a JSON file, and returns it.
fn take_field(dir: &TempDir, file: &str, name: &str) -> Value {
    let path = dir.path().join(file);
    let mut fields: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let taken = fields.as_object_mut().unwrap().remove(name).expect(name);
    fs::write(&path, fields.to_string()).unwrap();
    taken
}

#[cfg(unix)]
#[test]
fn what_other_programs_leave_answers_as_the_original() {
    let expected = chat(&serve(copy_of(&FILES).path()));
    assert!(expected.1 > 5, "{expected:?}");

    let nameless = copy_of(&FILES);
    take_field(&nameless, "tokenizer_config.json", "bos_token");

    let processor = copy_of(&FILES);
    let template = take_field(&processor, "tokenizer_config.json", "chat_template");
    let config = json!({"processor_class": "Gemma3Processor", "chat_template": template});
    fs::write(
        processor.path().join("processor_config.json"),
        config.to_string(),
    )
    .unwrap();

    let marked = copy_of(&FILES);
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let path = marked.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("\u{feff}{text}")).unwrap();
    }

    // As `huggingface-cli download --local-dir` once left it.
    let blobs = copy_of(&FILES);
    let linked = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(blobs.path()).unwrap() {
        let file = entry.unwrap();
        let link = linked.path().join(file.file_name());
        std::os::unix::fs::symlink(file.path(), link).unwrap();
    }

    for (what, dir) in [
        ("no bos_token", &nameless),
        ("a template in processor_config.json", &processor),
        ("byte order marks", &marked),
        ("links", &linked),
    ] {
        assert_eq!(chat(&serve(dir.path())), expected, "{what}");
    }
}

/// Rewrites all BF16 numbers of a file as F16, made finer by `more`.
fn write_f16(path: &Path, more: u16) {
    let bytes = fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = String::from_utf8(header.to_vec()).unwrap();
    assert!(header.contains("\"BF16\"") && !header.contains("\"F32\""));
    let header = header.replace("\"BF16\"", "\"F16\"");
    let numbers = data.as_chunks::<2>().0.iter().map(|number| {
        let number = half::f16::from_f32(half::bf16::from_le_bytes(*number).to_f32());
        (number.to_bits() | more).to_le_bytes()
    });
    let numbers: Vec<u8> = numbers.flatten().collect();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &numbers].concat()).unwrap();
}

#[test]
fn weights_in_f16_are_served_and_what_they_lose_is_told_once() {
    for (more, num_told) in [(0, 0), (1, 1)] {
        let dir = copy_of(&FILES);
        write_f16(&dir.path().join("model.safetensors"), more);
        let server = serve(dir.path());
        chat(&server);
        server.signal("-TERM");
        let (_, log) = server.end();
        let told = log.matches("finer than bf16's").count();
        assert_eq!(told, num_told, "{log}");
    }
}
