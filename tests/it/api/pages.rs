//! The pages: where they are, what browsers may do with them, and what they must not hold.

use std::collections::BTreeSet;

use medgemma::web::ASSETS;
use serde_json::Value;

use super::server::{Plan, Reply, TestServer};

/// Everything that a browser can be given.
async fn all_pages(server: &TestServer) -> Vec<(&'static str, Reply)> {
    let mut pages = Vec::new();
    for path in ASSETS.iter().map(|asset| asset.path).chain(["/docs"]) {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        pages.push((path, reply));
    }
    pages
}

/// What the template's escaping made of slashes, made slashes again.
fn unescaped(page: &str) -> String {
    page.replace("&#x2f;", "/")
}

#[tokio::test]
async fn browsers_may_do_little_with_them() {
    let server = Plan::for_test().start();
    for (path, reply) in all_pages(&server).await {
        let header = |name: &str| {
            let value = reply
                .headers
                .get(name)
                .unwrap_or_else(|| panic!("{path}: no {name}"));
            value.to_str().expect("ASCII").to_owned()
        };
        let policy = header("content-security-policy");
        let directives: BTreeSet<_> = policy.split("; ").collect();
        let expected = BTreeSet::from([
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]);
        assert_eq!(directives, expected, "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
        assert_eq!(header("cache-control"), "no-cache", "{path}");
        assert!(!reply.headers.contains_key("set-cookie"), "{path}");
        assert!(reply.headers.contains_key("x-request-id"), "{path}");
        let media_type = match path.rsplit_once('.') {
            None => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some((_, other)) => panic!("what is {other}?"),
        };
        assert_eq!(header("content-type"), media_type, "{path}");
    }
}

#[tokio::test]
async fn they_lead_nowhere_else() {
    // The name of a kind of document, and what the reference tells people to type.
    const ALLOWED: [&str; 3] = [
        "http://www.w3.org/2000/svg",
        "http://127.0.0.1:8000",
        "http://HOST:PORT",
    ];
    let server = Plan::for_test().start();
    for (path, reply) in all_pages(&server).await {
        let mut starts = vec!["http://", "https://", "ws://", "wss://", "=\"//"];
        if path.ends_with(".css") {
            starts.extend(["url(", "image-set(", "@import", "@font-face"]);
        }
        let mut text = unescaped(&reply.body);
        for allowed in ALLOWED {
            text = text.replace(allowed, "");
        }
        for start in starts {
            assert!(!text.contains(start), "{path} has {start}");
        }
    }
}

#[tokio::test]
async fn they_keep_nothing_and_make_no_markup() {
    const BANNED: [&str; 16] = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "createContextualFragment",
        "DOMParser",
        "setHTML",
        "srcdoc",
        "eval(",
        "Function(",
        "localStorage",
        "sessionStorage",
        "indexedDB",
        "document.cookie",
        "serviceWorker",
        "caches.",
    ];
    let server = Plan::for_test().start();
    for (path, reply) in all_pages(&server).await {
        for banned in BANNED {
            assert!(!reply.body.contains(banned), "{path} has {banned}");
        }
        // The policy forbids both in markup; a browser would only say so to whoever looks.
        if path == "/" || path == "/docs" {
            for attribute in [" style=", "<style", " onclick=", " onload=", "javascript:"] {
                assert!(!reply.body.contains(attribute), "{path} has {attribute}");
            }
            assert_eq!(reply.body.matches("<script").count(), 1, "{path}");
        }
    }
}

/// What stands in quotation marks after each `before`, which brings the first of them.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let rest = text.split(before).skip(1);
    rest.filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn what_they_ask_for_is_there() {
    let server = Plan::for_test().start();
    let mut asked = BTreeSet::new();
    for (path, reply) in all_pages(&server).await {
        if path == "/" || path == "/docs" {
            let here = quoted(&reply.body, " src=\"").into_iter();
            let here = here.chain(quoted(&reply.body, " href=\""));
            asked.extend(
                here.filter(|link| !link.starts_with('#'))
                    .map(str::to_owned),
            );
            let ids: BTreeSet<_> = quoted(&reply.body, " id=\"").into_iter().collect();
            let inner = quoted(&reply.body, "href=\"#");
            for target in inner {
                assert!(ids.contains(target), "{path}: #{target} leads nowhere");
            }
        }
        if path.ends_with(".js") {
            let imports = quoted(&reply.body, " from \"./");
            asked.extend(imports.iter().map(|name| format!("assets/{name}")));
        }
    }
    assert!(asked.contains("assets/playground.js") && asked.contains("assets/events.js"));
    // Relative, so that the pages also work below a prefix that a proxy adds.
    for link in &asked {
        assert!(!link.starts_with('/'), "{link} leaves a proxy's prefix");
        let path = format!("/{}", link.trim_start_matches("./"));
        assert_eq!(server.get(&path).await.status, 200, "{link}");
    }
    let unused: Vec<_> = ASSETS
        .iter()
        .map(|asset| asset.path.trim_start_matches('/'))
        .filter(|path| !path.is_empty() && !asked.contains(*path))
        .collect();
    assert_eq!(unused, Vec::<&str>::new(), "no page asks for them");
}

#[tokio::test]
async fn the_reference_names_everything_in_the_document() {
    let server = Plan::for_test().start();
    let document: Value = server.get("/openapi.json").await.ok();
    let page = unescaped(&server.get("/docs").await.body);
    let paths = document["paths"].as_object().expect("paths");
    for (path, item) in paths {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
        let operations = item.as_object().expect("an item");
        for operation in operations.values() {
            let id = operation["operationId"].as_str().expect("an id");
            if !id.ends_with("WithoutV1") {
                assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
            }
        }
    }
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    for (name, schema) in schemas {
        let anchor = format!("id=\"schema-{name}\"");
        let section = page
            .split(&anchor)
            .nth(1)
            .unwrap_or_else(|| panic!("no {name}"));
        let section = section.split("</section>").next().expect("text");
        for field in schema["properties"].as_object().into_iter().flatten() {
            let (field, _) = field;
            assert!(
                section.contains(&format!("<code>{field}</code>")),
                "{name}.{field}"
            );
        }
    }
    assert!(paths.len() > 15 && schemas.len() > 50);
}

#[tokio::test]
async fn the_reference_tells_types_ranges_and_defaults() {
    let server = Plan::for_test().start();
    let page = server.get("/docs").await.body;
    let field = |name: &str| {
        let start = format!("<dt><code>{name}</code>");
        let entry = page
            .split(&start)
            .nth(1)
            .unwrap_or_else(|| panic!("no {name}"));
        let entry = entry.split("</div>").next().expect("text").to_owned();
        entry.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (name, expected) in [
        (
            "messages",
            "array of <a href=\"#schema-ChatMessage\">ChatMessage</a>",
        ),
        ("messages", "required"),
        ("messages", "items: at least 1"),
        ("temperature", "number"),
        ("temperature", "at least 0.0 · at most 2.0"),
        ("top_p", "above 0.0 · at most 1.0"),
        ("n", "at least 1 · at most 128 · default 1"),
        ("stream", "boolean"),
        ("stream", "default false"),
        (
            "reasoning_effort",
            "one of &quot;none&quot;, &quot;minimal&quot;",
        ),
        ("logit_bias", "object of number"),
    ] {
        let entry = field(name);
        assert!(
            entry.contains(expected),
            "{name} without {expected}: {entry}"
        );
    }
}

#[tokio::test]
async fn they_tell_nothing_of_the_server() {
    let secret = Plan {
        keys: vec!["a-key"],
        names: vec!["hospital-model"],
        ..Plan::for_test()
    };
    let (secret, open) = (secret.start(), Plan::for_test().start());
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let pages = all_pages(&secret)
        .await
        .into_iter()
        .zip(all_pages(&open).await);
    for ((path, locked), (_, open)) in pages {
        assert_eq!(locked.body, open.body, "{path}");
        assert!(!locked.body.contains(&version), "{path}");
        assert!(!locked.body.contains(env!("CARGO_PKG_VERSION")), "{path}");
    }
}
