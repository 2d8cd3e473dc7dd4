//! The response to a head that is not valid HTTP.
//!
//! The HTTP library responds to such a head itself, before any handler runs, and without a body.
//! The socket recognizes that response, which is written alone, and replaces it.

use crate::api::http::error::ApiError;
use crate::api::http::random::random_id;

/// The headers of the library's own responses.
const ITS_HEADERS: [&str; 3] = ["connection: close", "content-length: 0", "date: "];

/// Returns the replacement for `written`, if that is the library's response to an invalid head.
pub(crate) fn reply_for(written: &[u8]) -> Option<Vec<u8>> {
    const LONGEST: usize = 256;
    if written.len() > LONGEST {
        return None;
    }
    let head = std::str::from_utf8(written)
        .ok()?
        .strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let first = lines.next()?;
    let status: u16 = first.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let is_its_own = |line: &str| ITS_HEADERS.iter().any(|header| line.starts_with(header));
    let headers: Vec<&str> = lines.collect();
    if !headers.iter().all(|line| is_its_own(line)) || !headers.contains(&ITS_HEADERS[1]) {
        return None;
    }
    let body = ApiError::malformed_head(status)?.to_json();
    let date = headers.iter().find(|line| line.starts_with(ITS_HEADERS[2]));
    let date = date.map_or(String::new(), |date| format!("{date}\r\n"));
    let reply = format!(
        "{first}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {}\r\n{date}\
         \r\n{body}",
        body.len(),
        random_id("req-"),
    );
    Some(reply.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_answers_are_replaced() {
        let own = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                   content-length: 0\r\ndate: Mon, 01 Jan 2029 00:00:00 GMT\r\n\r\n";
        let reply = reply_for(own.as_bytes()).expect("it is replaced");
        let reply = String::from_utf8(reply).expect("UTF-8");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert!(head.contains("date: Mon, 01 Jan 2029"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"]["code"], "headers_too_large");
        for other in [
            own.replace("431", "200"),
            own.replace("date: ", "x-request-id: "),
            own.replace("content-length: 0\r\n", ""),
            own.replace("\r\n\r\n", "\r\n\r\n{}"),
            own.replace("HTTP/1.1", "HTTP/1.0"),
        ] {
            assert_eq!(reply_for(other.as_bytes()), None, "{other}");
        }
    }
}
