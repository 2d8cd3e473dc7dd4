//! What a route is for, as far as the checks before its handler need to know.

use axum::extract::Request;

/// The kind of a route. The router, which knows all routes, adds it to every request before any
/// middleware runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// An orchestrator's probe. It needs no key, because such probes send none, and takes any host
    /// name.
    Probe,
    /// A web page, which needs no key because it contains no data of this server. Caches may keep
    /// it.
    Page,
    /// The metrics, which describe the requests of all clients and may need a key of their own, and
    /// their dashboard.
    Metrics,
    /// Every other route, and every path without one: it needs a key if the server has keys.
    #[default]
    Keyed,
}

impl RouteKind {
    /// Returns the kind of the route that a request is for.
    pub(crate) fn of(request: &Request) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }
}
