//! The socket: connections in, a graceful end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::router::router;
use super::state::AppState;

/// How long a client may take for a request's headers.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// After the last answer, how long connections may take to carry it to its client.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// Out of file descriptors, most likely: give some time to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then takes no new requests, finishes those that run, streams included,
/// and returns. Probes are answered until the end.
pub async fn serve(listener: TcpListener, app: AppState, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(app.clone()));
    let connections = GracefulShutdown::new();
    let mut drained = pin!(async {
        shutdown.await;
        tracing::info!("draining: finishing what runs");
        app.drain().await;
    });
    loop {
        let accepted: io::Result<(TcpStream, _)> = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut drained => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Each token is a small packet that must not wait for the next one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    if timeout(LAST_BYTES, connections.shutdown()).await.is_err() {
        tracing::warn!("some connections did not take their last bytes in time");
    }
}
