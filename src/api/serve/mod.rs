//! Listens on the socket, accepts connections, and shuts down gracefully.

mod connection_service;
mod exchange;
mod malformed;
mod socket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use self::connection_service::ConnectionService;
use self::exchange::Exchange;
use self::socket::Socket;
use crate::api::http::connections::Connections;
use crate::api::http::peer::Peer;
use crate::api::http::state::AppState;
use crate::api::router::{metrics_router, router};

/// How long a client may take to send a request's headers.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// After the last response, how long connections may take to deliver it.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// Pause after a failed accept. The usual cause is a lack of file descriptors, so some must be
/// closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Minimum time between two log lines that report the same about connections.
const QUIET: Duration = Duration::from_secs(60);

/// Number of connections on the metrics address. Clients' connections do not count here, so they
/// cannot block it.
const NUM_METRICS_CONNECTIONS: usize = 8;

/// Serves until `shutdown`, then rejects new requests, finishes the running ones, including
/// streams, and returns. Probes are answered until the end.
pub async fn serve(listener: TcpListener, app: AppState, shutdown: impl Future<Output = ()>) {
    let limits = app.connection_limits();
    let acceptor = Acceptor {
        router: router(app.clone()),
        connections: Arc::new(Connections::new(limits.total, limits.per_address)),
        send_timeout: limits.send_timeout,
        open: GracefulShutdown::new(),
    };
    let drained = async {
        shutdown.await;
        tracing::info!("draining: finishing what runs");
        app.drain().await;
    };
    acceptor.run(listener, drained).await;
}

/// Serves only the metrics and the probes, until `end`.
pub async fn serve_metrics(listener: TcpListener, app: AppState, end: impl Future<Output = ()>) {
    let acceptor = Acceptor {
        router: metrics_router(app.clone()),
        connections: Arc::new(Connections::new(NUM_METRICS_CONNECTIONS, None)),
        send_timeout: app.connection_limits().send_timeout,
        open: GracefulShutdown::new(),
    };
    acceptor.run(listener, end).await;
}

/// Accepts the connections of one listening socket.
struct Acceptor {
    router: Router,
    connections: Arc<Connections>,
    send_timeout: Duration,
    open: GracefulShutdown,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, end: impl Future<Output = ()>) {
        let ours = match listener.local_addr() {
            Ok(ours) => ours,
            Err(error) => {
                tracing::error!(%error, "the socket does not listen any more");
                return;
            }
        };
        let mut end = pin!(end);
        let mut cannot_accept = Notice::default();
        let mut is_full = Notice::default();
        loop {
            let accepted: io::Result<(TcpStream, SocketAddr)> = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut end => break,
            };
            match accepted {
                Ok((stream, theirs)) => {
                    if !self.take(stream, Peer::new(theirs, ours)) && is_full.is_due() {
                        tracing::warn!(
                            "all connections are in use, and new ones are closed: see \
                             --max-connections and --max-connections-per-address"
                        );
                    }
                }
                Err(error) => {
                    if cannot_accept.is_due() {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    // An idle connection can free the missing resource.
                    self.connections.evict_idle();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        if timeout(LAST_BYTES, self.open.shutdown()).await.is_err() {
            tracing::warn!("some clients did not read their last bytes in time");
        }
    }

    /// Serves a connection in a task of its own, if there is room for it. Returns whether there
    /// was.
    fn take(&self, stream: TcpStream, peer: Peer) -> bool {
        let Some(slot) = self.connections.take_slot(peer.network) else {
            return false;
        };
        // Each token is a small packet that must not wait for the next one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let exchange = Exchange::new(slot);
        let front = ConnectionService {
            router: self.router.clone(),
            peer,
            exchange: Arc::clone(&exchange),
        };
        let socket = Socket::new(stream, Arc::clone(&exchange), self.send_timeout);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(socket), front);
        let connection = self.open.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                }
                () = exchange.slot().evicted() => {
                    tracing::debug!("closed an idle connection to accept another");
                }
            }
        });
        true
    }
}

/// An event that is logged at most once per interval.
#[derive(Debug, Default)]
struct Notice {
    last: Option<Instant>,
}

impl Notice {
    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= QUIET);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}
