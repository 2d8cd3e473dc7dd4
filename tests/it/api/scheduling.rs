//! Terms: priority, tenants, cache salts, time limits.

use std::time::Duration;

use medgemma::core::{CacheSalt, SchedulingParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::images::{distinct_images, shown};
use super::server::{Plan, TestServer, chat_body};

async fn scheduling(server: &mut TestServer, extra: Value) -> SchedulingParams {
    server.chat(extra.clone()).await.ok();
    let chat = server.request().await.scheduling;
    server.complete(extra).await.ok();
    let completion = server.request().await.scheduling;
    assert_eq!(
        (chat.priority, chat.tenant, chat.cache_salt),
        (
            completion.priority,
            completion.tenant,
            completion.cache_salt
        )
    );
    chat
}

#[tokio::test]
async fn nothing_said_is_nothing_special() {
    let mut server = Plan::for_test().start();
    assert_eq!(
        scheduling(&mut server, json!({})).await,
        SchedulingParams::default()
    );
    let nulls = json!({"priority": null, "cache_salt": null, "timeout": null});
    assert_eq!(
        scheduling(&mut server, nulls).await,
        SchedulingParams::default()
    );
}

#[tokio::test]
async fn priority_is_any_32_bit_integer() {
    let mut server = Plan::for_test().start();
    for priority in [0, 1, -1, i32::MAX, i32::MIN] {
        let scheduling = scheduling(&mut server, json!({"priority": priority})).await;
        assert_eq!(scheduling.priority, priority);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_the_shorter_of_the_requests_and_the_servers() {
    let in_seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
    for (field, flag, expected) in [
        (json!(null), None, None),
        (json!(1.5), None, in_seconds(1.5)),
        (json!(null), in_seconds(60.0), in_seconds(60.0)),
        (json!(5), in_seconds(60.0), in_seconds(5.0)),
        (json!(500), in_seconds(60.0), in_seconds(60.0)),
        (json!(1e300), None, None),
    ] {
        let plan = Plan {
            request_timeout: flag,
            ..Plan::for_test()
        };
        let mut server = plan.start();
        // The clock stands still.
        let now = Instant::now().into_std();
        server.chat(json!({"timeout": field})).await.ok();
        let deadline = server.request().await.scheduling.deadline;
        assert_eq!(
            deadline,
            expected.map(|time| now + time),
            "{field} {flag:?}"
        );
    }
}

/// The engine's salt of a request with a key and a salt of its own.
async fn salt(server: &mut TestServer, key: &str, word: Option<&str>) -> Option<CacheSalt> {
    let body = chat_body(json!({"cache_salt": word}));
    let reply = server.post_as(key, "/v1/chat/completions", body).await;
    reply.ok();
    server.request().await.scheduling.cache_salt
}

#[tokio::test]
async fn what_one_key_caches_no_other_key_finds() {
    let plan = Plan {
        keys: vec!["first", "second"],
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let first = salt(&mut server, "first", None).await;
    let second = salt(&mut server, "second", None).await;
    assert!(first.is_some() && second.is_some());
    assert_ne!(first, second);
    assert_eq!(salt(&mut server, "first", None).await, first);
    let salted = salt(&mut server, "first", Some("s")).await;
    assert_ne!(salted, first);
    assert_eq!(salt(&mut server, "first", Some("s")).await, salted);
    assert_ne!(salt(&mut server, "first", Some("t")).await, salted);
    // Who knows another's salt still finds nothing.
    assert_ne!(salt(&mut server, "second", Some("s")).await, salted);
}

#[tokio::test]
async fn with_one_key_or_none_all_share_unless_they_say_otherwise() {
    for keys in [vec![], vec!["only"], vec!["only", "only"]] {
        let plan = Plan {
            keys,
            ..Plan::for_test()
        };
        let mut server = plan.start();
        assert_eq!(salt(&mut server, "only", None).await, None);
        let salted = salt(&mut server, "only", Some("s")).await;
        assert!(salted.is_some());
        assert_eq!(salt(&mut server, "only", Some("s")).await, salted);
        assert_ne!(salt(&mut server, "only", Some("t")).await, salted);
    }
}

#[tokio::test]
async fn each_key_is_a_tenant() {
    let plan = Plan {
        keys: vec!["first", "second"],
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let mut tenants = Vec::new();
    for key in ["first", "second", "first"] {
        let reply = server
            .post_as(key, "/v1/chat/completions", chat_body(json!({})))
            .await;
        reply.ok();
        tenants.push(server.request().await.scheduling.tenant);
    }
    assert_eq!(tenants[0], tenants[2]);
    assert_ne!(tenants[0], tenants[1]);
    assert!(!tenants.contains(&SchedulingParams::default().tenant));
}

#[tokio::test]
async fn time_that_is_up_before_the_engine_has_the_request_is_up() {
    let mut server = Plan::for_test().start();
    // Far more images than are decoded before the clock is looked at.
    let images = distinct_images(200);
    let mut body = shown(&images.iter().map(String::as_str).collect::<Vec<_>>());
    body["messages"][0]["content"][200]["text"] = json!("x");
    body["timeout"] = json!(1e-6);
    let long = Plan {
        max_model_len: 4096,
        ..Plan::for_test()
    };
    let patient = long.start();
    let reply = patient.chat(body).await;
    assert_eq!(
        reply.error(),
        (504, Some("deadline_exceeded".to_owned()), None)
    );
    assert_eq!(reply.json()["error"]["type"], "timeout_error");
    assert_eq!(patient.engine.num_in_flight(), 0);
    // Others are served.
    server.chat(json!({"seed": 3})).await.ok();
    assert_eq!(server.request().await.sampling.seed, 3);
}
