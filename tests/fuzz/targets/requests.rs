//! Bodies of requests, through the whole router to an engine that is a script.

use std::cell::RefCell;

use tokio::runtime::{Builder, Runtime};

use super::server::{Plan, TestServer};

struct Running {
    runtime: Runtime,
    server: TestServer,
}

thread_local!(static RUNNING: RefCell<Running> = RefCell::new(start()));

fn start() -> Running {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be had");
    let server = runtime.block_on(async { Plan::for_test().start() });
    Running { runtime, server }
}

fn post(path: &str, body: &[u8]) {
    RUNNING.with_borrow_mut(|Running { runtime, server }| {
        let reply = runtime.block_on(server.post(path, body.to_vec()));
        // A fault of the server's is what is looked for; all else is the client's.
        assert!(reply.status < 500, "{}", reply.body);
        if reply.status >= 400 && path != "/v1/messages" {
            reply.error();
        }
        // Nobody looks at what the engine was asked.
        while server.seen.try_recv().is_ok() {}
    });
}

pub(super) fn chat(body: &[u8]) {
    post("/v1/chat/completions", body);
}

pub(super) fn completions(body: &[u8]) {
    post("/v1/completions", body);
}

pub(super) fn responses(body: &[u8]) {
    post("/v1/responses", body);
}

pub(super) fn messages(body: &[u8]) {
    post("/v1/messages", body);
}
