//! Tests of the formats of errors.

use std::time::Duration;

use super::*;

#[test]
fn long_messages_keep_both_ends_and_whole_characters() {
    let message = format!("begin {} end", "é".repeat(2000));
    let short = shorten(message);
    assert!(short.len() <= MAX_MESSAGE + 4, "{} bytes", short.len());
    assert!(short.starts_with("begin é") && short.ends_with("é end"));
    assert_eq!(shorten("as it is".to_owned()), "as it is");
}

#[test]
fn codes_and_params_are_strings_or_null() {
    let error = ApiError::invalid_value("n", "n must be 1–128, got 0.");
    assert_eq!(
        error.to_json(),
        r#"{"error":{"message":"n must be 1–128, got 0.","type":"invalid_request_error","param":"n","code":"invalid_value"}}"#
    );
    let error = ApiError::from(Error::QueueFull {
        queued: 3,
        retry_after: Duration::from_secs(7),
    });
    assert!(error.to_json().contains(r#""param":null"#));
    assert_eq!(error.headers[0], (RETRY_AFTER, HeaderValue::from(7)));
}

#[test]
fn a_fault_of_ours_is_told_to_the_log_only() {
    let error = ApiError::from(Error::Backend("secret shape (3, 4)".to_owned()));
    assert!(!error.to_json().contains("secret"));
    assert!(error.refusal().detail.expect("kept").contains("secret"));
}
