//! Checks whether a server is ready, for a container's health check, so that the image needs no
//! curl.

use std::time::Duration;

use crate::http_client;

/// Requests `/ready` of `url`.
///
/// # Errors
/// If the server is not ready: its own message, or that it does not respond.
pub async fn ready(url: &str, within: Duration) -> Result<(), String> {
    let url = format!("{}/ready", url.trim_end_matches('/'));
    let failed = |error: reqwest::Error| format!("{url} does not answer: {}", told(&error));
    let client = http_client::without_tls().timeout(within).no_proxy();
    let client = client.build().map_err(failed)?;
    let answer = client.get(&url).send().await.map_err(failed)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = answer.text().await.unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let message = body["error"]["message"]
        .as_str()
        .unwrap_or("no reason given");
    Err(format!("{url} answers {}: {message}", status.as_u16()))
}

/// The innermost cause: the outer ones only repeat the address.
fn told(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
