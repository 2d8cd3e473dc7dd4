//! A client that goes away frees its slot at once.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::prelude::{BASE64_STANDARD, Engine};
use medgemma::api::serve;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::ServiceExt;

use super::images::{distinct_images, shown};
use super::server::{End, Plan, TestServer, always, chat_body, tokens};

fn hanging() -> TestServer {
    let plan = Plan {
        script: always(tokens("The heart"), End::Hang),
        ..Plan::for_test()
    };
    plan.start()
}

fn chat(extra: Value) -> Request<Body> {
    Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(chat_body(extra).to_string()))
        .expect("a plain request")
}

#[tokio::test]
async fn dropping_a_stream_aborts_all_its_answers() {
    let mut server = hanging();
    let request = chat(json!({"stream": true, "n": 3}));
    let response = server
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("an answer");
    assert_eq!(server.engine.num_in_flight(), 3);
    drop(response);
    for _ in 0..3 {
        server.aborted().await;
    }
    assert_eq!(server.engine.num_in_flight(), 0);
}

#[tokio::test]
async fn dropping_a_whole_answers_request_aborts_it() {
    let mut server = hanging();
    let answering = server.router.clone().oneshot(chat(json!({"n": 2})));
    let both_asked = async {
        server.request().await;
        server.request().await;
    };
    tokio::select! {
        answer = answering => panic!("the engine hangs, and yet: {answer:?}"),
        () = both_asked => {}
    }
    server.aborted().await;
    server.aborted().await;
    assert_eq!(server.engine.num_in_flight(), 0);
}

#[tokio::test]
async fn a_closed_connection_is_noticed_while_nothing_is_sent() {
    let mut server = hanging();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));
    for stream in [false, true] {
        let body = chat_body(json!({"stream": stream})).to_string();
        // A client of its own, so that its connection closes with it.
        let client = medgemma::http_client::without_tls().build().unwrap();
        let request = client
            .post(format!("http://{address}/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(body);
        let sending = tokio::spawn(async move {
            let mut response = request.send().await.expect("an answer");
            while let Ok(Some(_)) = response.chunk().await {}
        });
        server.request().await;
        assert_eq!(server.engine.num_in_flight(), 1);
        drop(client);
        sending.abort();
        let aborted = timeout(Duration::from_secs(20), server.aborted()).await;
        aborted.expect("the client left and the engine was not told");
        assert_eq!(server.engine.num_in_flight(), 0);
    }
}

#[tokio::test]
async fn leaving_while_images_are_decoded_ends_the_work() {
    const NUM_IMAGES: usize = 500;
    let plan = Plan {
        max_model_len: 8192,
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let images = distinct_images(NUM_IMAGES);
    let urls: Vec<_> = images.iter().map(String::as_str).collect();
    let request = chat(shown(&urls));
    let decoded = "medgemma:images_decoded_total{model_name=\"tiny\"}";

    let mut answering = Box::pin(server.router.clone().oneshot(request));
    // What is decoded next is only begun while the request is polled.
    while server.metric(decoded).await < 1.0 {
        let answer = futures_util::poll!(&mut answering);
        assert!(answer.is_pending(), "500 images took no time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(answering);
    let when_left = server.metric(decoded).await;

    // Places for work are free again, and in order: behind this one nothing of the other waits.
    server.chat(shown(&[&images[0]])).await.ok();
    let num_places = std::thread::available_parallelism().map_or(1, usize::from);
    let more = server.metric(decoded).await - when_left;
    assert!(more <= num_places as f64 + 1.0, "{more} more were decoded");
    assert!(when_left + more < NUM_IMAGES as f64);
    // The engine never heard of it, and a drain does not wait for it.
    assert_eq!(server.request().await.images.len(), 1);
    server.app.drain().await;
    let cancelled = "medgemma:requests_cancelled_total{model_name=\"tiny\"}";
    assert_eq!(server.metric(cancelled).await, 1.0);
}

/// 48 Mpixels of black in a file of 50 kB: most of a second to decode.
fn large_image() -> Vec<u8> {
    let (width, height) = (8000, 6000);
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    let pixels = vec![0; 8000 * 6000];
    image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ColorType::L8.into())
        .expect("it can be written");
    file
}

#[tokio::test]
async fn an_image_is_given_up_when_its_client_has_left() {
    const NUM_IMAGES: usize = 100;
    let plan = Plan {
        max_model_len: 8192,
        ..Plan::for_test()
    };
    let server = plan.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));

    // What stands behind an image's end makes each another one.
    let file = large_image();
    let image = |number: usize| {
        let file = [&file[..], &number.to_le_bytes()].concat();
        format!("data:image/png;base64,{}", BASE64_STANDARD.encode(file))
    };
    let images: Vec<_> = (0..NUM_IMAGES).map(image).collect();
    let urls: Vec<_> = images.iter().map(String::as_str).collect();
    let body = chat_body(shown(&urls)).to_string();
    let decoded = "medgemma:images_decoded_total{model_name=\"tiny\"}";
    let abandoned = "medgemma:images_abandoned_total{model_name=\"tiny\"}";
    let exceeds = async |series: &str, number: f64| {
        while server.metric(series).await <= number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };

    // On a busy machine a client may leave just where one image is done and the next not begun.
    for _ in 0..20 {
        let before = server.metric(decoded).await;
        let client = medgemma::http_client::without_tls().build().unwrap();
        let request = client
            .post(format!("http://{address}/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(body.clone());
        let sending = tokio::spawn(request.send());
        let begun = timeout(Duration::from_secs(120), exceeds(decoded, before)).await;
        begun.expect("no image was decoded");
        drop(client);
        sending.abort();
        // The places are free, and nothing is left to be decoded.
        server.chat(shown(&[&distinct_images(1)[0]])).await.ok();
        let num_decoded = server.metric(decoded).await - before;
        assert!(num_decoded < NUM_IMAGES as f64, "{num_decoded}");
        if server.metric(abandoned).await > 0.0 {
            return;
        }
    }
    panic!("images that nobody waits for are decoded to their end");
}

#[tokio::test]
async fn leaving_while_the_body_comes_leaves_nothing() {
    let server = hanging();
    let stuck = Body::from_stream(futures_util::stream::pending::<
        Result<Vec<u8>, std::io::Error>,
    >());
    let request = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(stuck)
        .expect("a plain request");
    let mut answering = Box::pin(server.router.clone().oneshot(request));
    assert!(futures_util::poll!(&mut answering).is_pending());
    drop(answering);
    assert_eq!(server.engine.num_in_flight(), 0);
    server.app.drain().await;
}

#[tokio::test]
async fn leaving_while_others_run_frees_the_place_in_the_queue() {
    // Nothing comes of it before it leaves: to the HTTP side it is as if it waited.
    let plan = Plan {
        script: always(Vec::new(), End::Hang),
        max_in_flight: 1,
        ..Plan::for_test()
    };
    let mut server = plan.start();
    for _ in 0..3 {
        let mut answering = Box::pin(server.router.clone().oneshot(chat(json!({}))));
        assert!(futures_util::poll!(&mut answering).is_pending());
        server.request().await;
        assert_eq!(server.chat(json!({})).await.status, 429);
        drop(answering);
        server.aborted().await;
        assert_eq!(server.engine.num_in_flight(), 0);
    }
}
