//! The HTTP service of one connection. It gives each request its peer address, and records the
//! request's progress for the connection.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::ServiceExt;

use super::exchange::{AnswerBody, Exchange, RequestBody};
use crate::api::http::connections::SlotKind;
use crate::api::http::peer::Peer;

/// The routes, for one connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionService {
    pub(crate) router: Router,
    pub(crate) peer: Peer,
    pub(crate) exchange: Arc<Exchange>,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = Arc::clone(&self.exchange);
        exchange.asked(request.version());
        let kind = exchange.slot().kind();
        let mut request =
            request.map(|body| Body::new(RequestBody::new(body, Arc::clone(&exchange))));
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(kind);
        let answering = self.router.clone().oneshot(request);
        Box::pin(async move {
            let mut response = answering.await?;
            if kind == SlotKind::Spare {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            exchange.answered(response.headers());
            Ok(response.map(|body| AnswerBody::new(body, exchange)))
        })
    }
}
