//! What the program refuses to do, what it says then, and the code that it ends with.

use std::fs;

use super::{NOISE, Server, copy_of, medgemma, output, stderr};

#[test]
fn what_cannot_be_served_is_said_in_one_line() {
    let broken = copy_of(&[NOISE]);
    let weights = broken.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let broken = broken.path().to_str().unwrap();

    let quantised = copy_of(&[NOISE]);
    let config = quantised.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replacen(
            '{',
            "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"},",
            1,
        ),
    )
    .unwrap();
    let quantised = quantised.path().to_str().unwrap();

    let images = copy_of(&[NOISE]);
    let config = images.path().join("preprocessor_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"height\": 896", "\"height\": 448")).unwrap();
    let images = images.path().to_str().unwrap();

    let adapter = tempfile::tempdir().unwrap();
    fs::write(
        adapter.path().join("adapter_config.json"),
        r#"{"base_model_name_or_path": "google/medgemma-4b-it", "peft_type": "LORA"}"#,
    )
    .unwrap();
    let adapter = adapter.path().to_str().unwrap();
    let trained = copy_of(&[NOISE]);
    fs::remove_file(trained.path().join("model.safetensors")).unwrap();
    fs::write(trained.path().join("adapter_config.json"), "{}").unwrap();
    let trained = trained.path().to_str().unwrap();
    let pointers = copy_of(&[NOISE]);
    fs::write(
        pointers.path().join("tokenizer.json"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 33384568\n",
    )
    .unwrap();
    let pointers = pointers.path().to_str().unwrap();

    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let cases: [(i32, &[&str], &[&str]); 19] = [
        (
            66,
            &["nosuch"],
            &["nosuch is neither", "demo", "medgemma-4b-it"],
        ),
        (66, &["medgema-4b-it"], &["Did you mean medgemma-4b-it?"]),
        (
            66,
            &["medgemma-4b-it"],
            &[
                "google/medgemma-4b-it at revision main is not in",
                "OFFLINE",
            ],
        ),
        (
            66,
            &["someone/something", "--revision", "v2"],
            &["someone/something at revision v2 is not in", "OFFLINE"],
        ),
        (
            78,
            &["demo", "--revision", "v2"],
            &["--revision v2 is for models from the hub"],
        ),
        (66, &["./nowhere"], &["there is no directory ./nowhere"]),
        (66, &["Cargo.toml"], &["is a file"]),
        (66, &[empty], &["has no config.json", "name the directory"]),
        (
            65,
            &[broken],
            &["model.safetensors: is truncated", "tensor "],
        ),
        (
            65,
            &[quantised],
            &[
                "config.json: quantization_config says",
                "by bitsandbytes",
                "BF16",
            ],
        ),
        (
            66,
            &[adapter],
            &["holds an adapter", "merge it into google/medgemma-4b-it"],
        ),
        (
            65,
            &[trained],
            &["has neither model.safetensors", "holds an adapter"],
        ),
        (
            65,
            &[pointers],
            &["tokenizer.json: is a Git LFS pointer", "git lfs pull"],
        ),
        (
            65,
            &[images],
            &["preprocessor_config.json: size.height is 448", "896"],
        ),
        (
            66,
            &["demo", "--models", "nowhere.toml"],
            &["nowhere.toml: cannot be read"],
        ),
        (
            78,
            &["demo", "--chat-template", "nowhere.jinja"],
            &["nowhere.jinja cannot be read"],
        ),
        (
            73,
            &["demo", "--host", "256.0.0.1"],
            &["cannot listen on 256.0.0.1:0"],
        ),
        (
            71,
            &["demo", "--kv-cache-memory", "1000TiB"],
            &["--kv-cache-memory can be at most"],
        ),
        (
            78,
            &["demo", "--max-model-len", "9000"],
            &["9000 is more than the model's context of 8192"],
        ),
    ];
    for (code, arguments, says) in cases {
        let output = output(
            &[&["serve", "--port", "0", "--log-level", "error"], arguments].concat(),
            &[],
        );
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.starts_with("medgemma: "), "{said}");
        for part in says {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Server::start(&["demo"], &[]);
    let port = server.address.rsplit(':').next().unwrap();
    let output = output(&["serve", "demo", "--port", port], &[]);
    assert_eq!(output.status.code(), Some(73));
    let said = stderr(&output);
    assert!(
        said.contains(&format!("cannot listen on 127.0.0.1:{port}")) && said.contains("--port"),
        "{said}"
    );
}

/// Arguments, environment variables, and what the error must contain.
type Refused<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn arguments_that_cannot_be_are_refused_by_name() {
    let cases: [Refused<'_>; 37] = [
        (
            &["a", "--model", "b"],
            &[],
            &["MODEL is a, but --model is b"],
        ),
        (&["a", "b"], &[], &["unexpected argument 'b'"]),
        (&["--port", "65536"], &[], &["--port", "65536"]),
        (&["--port", "-1"], &[], &["-1"]),
        (&[], &[("MEDGEMMA_PORT", "http")], &["--port", "http"]),
        (&["--device", "gpu"], &[], &["gpu", "cuda:N"]),
        (&[], &[("MEDGEMMA_DEVICE", "tpu")], &["tpu", "auto, cpu"]),
        (&["--dtype", "int8"], &[], &["int8", "bf16 (GPUs)"]),
        (
            &["--gpu-memory-utilization", "1.5"],
            &[],
            &["--gpu-memory-utilization", "at most 1"],
        ),
        (&["--dtype", "float16"], &[], &["float16", "overflows"]),
        (&["--load-format", "gguf"], &[], &["gguf", "auto, dummy"]),
        (
            &["--max-num-seqs", "0"],
            &[],
            &["--max-num-seqs", "between 1 and"],
        ),
        (
            &["--max-model-len", "8kb"],
            &[],
            &["--max-model-len", "whole number"],
        ),
        (&["--max-num-batched-tokens", "-5"], &[], &["-5"]),
        (
            &["--kv-cache-memory", "4XB"],
            &[],
            &["--kv-cache-memory", "4GiB"],
        ),
        (&["--kv-cache-memory", "0"], &[], &["more than nothing"]),
        (
            &["--max-queued-requests", "0"],
            &[],
            &["--max-queued-requests", "between 1 and"],
        ),
        (
            &["--request-timeout", "0"],
            &[],
            &["--request-timeout", "more than 0"],
        ),
        (
            &[],
            &[("MEDGEMMA_STEP_TIMEOUT", "2m")],
            &["--step-timeout", "number of seconds"],
        ),
        (&["--shutdown-timeout=-1"], &[], &["between 0 and"]),
        (
            &["--enable-prefix-caching=perhaps"],
            &[],
            &["--enable-prefix-caching", "perhaps"],
        ),
        (&["--api-key", ""], &[], &["give access to everyone"]),
        (&["--api-key", "two words"], &[], &["without spaces"]),
        (&["--log-level", "loud"], &[], &["loud", "debug"]),
        (
            &["--quantization", "awq"],
            &[],
            &["--quantization awq is not supported", "bf16"],
        ),
        (&["-q", "awq"], &[], &["--quantization awq"]),
        (
            &["--tensor-parallel-size", "2"],
            &[],
            &["--tensor-parallel-size 2", "one GPU"],
        ),
        (&["-tp=2"], &[], &["--tensor-parallel-size 2"]),
        (
            &["--tensor_parallel_size=2"],
            &[],
            &["--tensor-parallel-size 2"],
        ),
        (
            &[],
            &[("MEDGEMMA_TENSOR_PARALLEL_SIZE", "2")],
            &["--tensor-parallel-size 2"],
        ),
        (
            &["--max-num-queued-reqs", "9"],
            &[],
            &["--max-num-queued-reqs 9", "--max-queued-requests"],
        ),
        (
            &["--structured-outputs-config.disable_any_whitespace", "true"],
            &[],
            &["--structured-outputs-config.disable_any_whitespace true"],
        ),
        (
            &["--config", "no/such.yaml"],
            &[],
            &["--config no/such.yaml"],
        ),
        (&["--seed", "-1"], &[], &["-1"]),
        (
            &["--limit-mm-per-prompt", "video=1"],
            &[],
            &["--limit-mm-per-prompt", "no video"],
        ),
        (
            &["--api-key-file", "no/such/file"],
            &[],
            &["--api-key-file no/such/file"],
        ),
        (
            &["--generation-config", "/tmp"],
            &[],
            &["--generation-config", "auto, vllm"],
        ),
    ];
    for (arguments, variables, says) in cases {
        let output = output(&[&["serve"], arguments].concat(), variables);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        for part in says {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    // The highest number that can be written: no machine has so many.
    let output = output(
        &["serve", "demo", "--device", "cuda:65535", "--port", "0"],
        &[],
    );
    assert_eq!(output.status.code(), Some(69));
    let said = stderr(&output);
    assert!(
        said.contains("--device cuda:65535 cannot be used"),
        "{said}"
    );
}

#[test]
fn what_changes_no_answer_is_taken_with_a_word() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        "model: demo\nenforce-eager: true\nmax-model-len: 4k\n",
    )
    .unwrap();
    let line = [
        "serve",
        "--config",
        file.path().to_str().unwrap(),
        "--device=cpu",
        "--dtype",
        "float32",
        "--dtype",
        "bfloat16",
        "-O3",
        "--structured-outputs-config.backend",
        "xgrammar",
        "--port=0",
    ];
    let server = Server::up(medgemma(&line, &[]));
    let (status, models) = server.get("/v1/models");
    assert_eq!(status, 200);
    assert!(models.contains("\"max_model_len\":4000"), "{models}");
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    for word in [
        "--enforce-eager is not needed",
        "--optimization-level 3 is not needed",
        "--structured-outputs-config.backend xgrammar is not needed",
        "--dtype bf16 is for GPUs",
    ] {
        assert_eq!(log.matches(word).count(), 1, "{word}: {log}");
    }
}

#[test]
fn kernels_are_compiled_for_architectures_that_exist() {
    let output = output(&["kernels", "--arch", "sm_75"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("sm_75 cannot run the kernels"));
}

#[test]
fn a_directory_above_the_checkpoints_is_seen_through() {
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("there")).unwrap();
    fs::write(above.path().join("there/config.json"), "{}").unwrap();
    let output = output(
        &["serve", above.path().to_str().unwrap(), "--port", "0"],
        &[],
    );
    assert_eq!(output.status.code(), Some(66));
    let said = stderr(&output);
    assert!(
        said.contains("did you mean") && said.contains("there?"),
        "{said}"
    );
}
