//! DICOM files in requests.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::images::shown;
use super::server::{Plan, Reply, TestServer};

const CHATS: &str = "/v1/chat/completions";
const NAME: &str = "MARKER^OF^A^NAME";
const UID: &str = "1.2.826.0.1.3680043.2.1125.77";

fn server() -> TestServer {
    let plan = Plan {
        max_model_len: 4096,
        ..Plan::for_test()
    };
    plan.start()
}

/// An uncompressed file of 16 bits, explicit little endian.
struct File {
    modality: &'static str,
    num_frames: usize,
    /// Rescale slope and intercept, as they are written.
    rescale: Option<(&'static str, &'static str)>,
    has_preamble: bool,
}

impl File {
    fn for_test() -> Self {
        Self {
            modality: "CT",
            num_frames: 1,
            rescale: Some(("1", "-1024")),
            has_preamble: true,
        }
    }

    fn url(&self) -> String {
        let encoded = BASE64_STANDARD.encode(self.bytes());
        format!("data:image/png;base64,{encoded}")
    }

    fn bytes(&self) -> Vec<u8> {
        const SIDE: u16 = 8;
        let mut file = Vec::new();
        if self.has_preamble {
            file.resize(128, 0);
            file.extend(b"DICM");
        }
        add(&mut file, (2, 0x10), b"UI", b"1.2.840.10008.1.2.1");
        add(&mut file, (8, 0x18), b"UI", UID.as_bytes());
        add(&mut file, (8, 0x60), b"CS", self.modality.as_bytes());
        add(&mut file, (0x10, 0x10), b"PN", NAME.as_bytes());
        let number = |file: &mut Vec<u8>, element, number: u16| {
            add(file, (0x28, element), b"US", &number.to_le_bytes());
        };
        number(&mut file, 2, 1);
        add(&mut file, (0x28, 4), b"CS", b"MONOCHROME2");
        add(
            &mut file,
            (0x28, 8),
            b"IS",
            self.num_frames.to_string().as_bytes(),
        );
        for (element, value) in [
            (0x10, SIDE),
            (0x11, SIDE),
            (0x100, 16),
            (0x101, 12),
            (0x102, 11),
            (0x103, 0),
        ] {
            number(&mut file, element, value);
        }
        add(&mut file, (0x28, 0x301), b"CS", b"YES");
        if let Some((slope, intercept)) = self.rescale {
            add(&mut file, (0x28, 0x1052), b"DS", intercept.as_bytes());
            add(&mut file, (0x28, 0x1053), b"DS", slope.as_bytes());
        }
        let frame_len = usize::from(SIDE * SIDE);
        let samples = (0..self.num_frames * frame_len).map(|idx| (idx * 37 % 4096) as u16);
        let pixels: Vec<u8> = samples.flat_map(u16::to_le_bytes).collect();
        file.extend([0xe0, 0x7f, 0x10, 0, b'O', b'W', 0, 0]);
        file.extend((pixels.len() as u32).to_le_bytes());
        file.extend(pixels);
        file
    }
}

fn add(file: &mut Vec<u8>, (group, element): (u16, u16), vr: &[u8; 2], value: &[u8]) {
    file.extend([group, element].map(u16::to_le_bytes).concat());
    file.extend(vr);
    let padding = value.len() % 2;
    file.extend(((value.len() + padding) as u16).to_le_bytes());
    file.extend(value);
    file.extend(vec![b' '; padding]);
}

async fn ask(server: &mut TestServer, file: &File, kwargs: Value) -> Reply {
    let mut body = shown(&[&file.url()]);
    body["mm_processor_kwargs"] = kwargs;
    body["return_inputs"] = json!(true);
    server.post(CHATS, body.to_string()).await
}

#[tokio::test]
async fn a_file_is_shown_and_the_answer_says_how() {
    let mut server = server();
    for has_preamble in [true, false] {
        let file = File {
            has_preamble,
            ..File::for_test()
        };
        let window = json!({"center": 0.1, "width": 0.3});
        for (kwargs, shown) in [
            (json!({}), json!({"center": 40.0, "width": 350.0})),
            (json!({"window": [window, window, window]}), window),
        ] {
            let reply = ask(&mut server, &file, kwargs).await;
            assert_eq!(reply.status, 200, "{has_preamble}: {}", reply.body);
            let warned = reply.headers.get("x-medgemma-warning").cloned();
            let warned = warned.expect("it warns");
            assert!(
                warned
                    .to_str()
                    .is_ok_and(|codes| codes.contains("burned_in_annotation"))
            );
            let input = &reply.ok()["inputs"][0];
            assert_eq!(input["kind"], "dicom");
            assert_eq!(input["modality"], "CT");
            assert_eq!(input["window"][1], shown, "as it was asked for");
            assert_eq!(server.request().await.images.len(), 1);
        }
    }
}

#[tokio::test]
async fn a_request_chooses_window_and_frames() {
    let mut server = server();
    let file = File {
        num_frames: 10,
        ..File::for_test()
    };
    let mut hashes = Vec::new();
    for (kwargs, images) in [
        (json!({}), 8),
        (json!({"frames": [10, 1]}), 2),
        (json!({"frames": [10, 1], "window": "lung"}), 2),
        (json!({"frames": [10, 1], "window": "header"}), 2),
        (json!({"frames": [10, 1], "ct_windows": "medgemma-1"}), 2),
    ] {
        ask(&mut server, &file, kwargs.clone()).await.ok();
        let request = server.request().await;
        assert_eq!(request.images.len(), images, "{kwargs}");
        hashes.push(request.images[0].pixels.hash);
    }
    for (idx, hash) in hashes.iter().enumerate() {
        assert!(
            !hashes[..idx].contains(hash),
            "{idx} is shown in its own way"
        );
    }
    let reply = ask(&mut server, &file, json!({"frames": [11]})).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("has 10 frames"), "{}", reply.body);
}

#[tokio::test]
async fn what_cannot_be_shown_is_refused_and_nobody_is_named() {
    let mut server = server();
    let without_scale = File {
        rescale: None,
        ..File::for_test()
    };
    let reply = ask(&mut server, &without_scale, json!({})).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("no RescaleSlope"), "{}", reply.body);
    ask(&mut server, &without_scale, json!({"window": "header"}))
        .await
        .ok();
    let whole = File::for_test().bytes();
    for length in [140, 200, 300, whole.len() - 1] {
        let encoded = BASE64_STANDARD.encode(&whole[..length]);
        let url = format!("data:application/dicom;base64,{encoded}");
        let reply = server.post(CHATS, shown(&[&url]).to_string()).await;
        assert_eq!(reply.status, 400, "{length}");
        assert!(reply.body.contains("DICOM"), "{}", reply.body);
        assert!(
            !reply.body.contains(NAME) && !reply.body.contains(UID),
            "{length}"
        );
    }
}
