//! Normalizes paths: base URLs end with a slash or not, so that requests arrive at
//! `//v1/models` or `/v1/models/`. Both find the route.

use axum::extract::Request;
use axum::http::uri::{PathAndQuery, Uri};

/// Removes repeated slashes and the one at the end. The query stays as it is.
pub(crate) fn normalize_path(mut request: Request) -> Request {
    if let Some(uri) = tidied(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// `None` if the path is tidy.
fn tidied(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (path.len() < 2 || !path.ends_with('/')) {
        return None;
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut tidy: String = segments.flat_map(|segment| ["/", segment]).collect();
    if tidy.is_empty() {
        tidy.push('/');
    }
    if let Some(query) = uri.query() {
        tidy.push('?');
        tidy.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(tidy).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_come_once_and_not_at_the_end() {
        for (path, expected) in [
            ("//v1/models", "/v1/models"),
            ("/v1//chat///completions/", "/v1/chat/completions"),
            ("/v1/models/?limit=1//2/", "/v1/models?limit=1//2/"),
            ("//", "/"),
            ("/a/../b//", "/a/../b"),
        ] {
            let tidy = tidied(&path.parse().expect("a path"));
            assert_eq!(tidy.expect("it is not tidy").to_string(), expected);
        }
        for path in ["/", "/v1/models", "/v1/models?a=b//", "*"] {
            assert_eq!(tidied(&path.parse().expect("a path")), None, "{path}");
        }
    }
}
