//! State that all handlers share: the model once it is loaded, the keys, and whether the server
//! still accepts requests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::auth_failures::AuthFailures;
use super::blocking_pool::BlockingPool;
use super::connections::ConnectionLimits;
use super::cors::Cors;
use super::error::ApiError;
use super::keys::ApiKeys;
use super::request_memory::{Charge, RequestMemory};
use super::site::Site;
use crate::engine::EngineState;
use crate::error::Error;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::registry::ServedModel;

/// Shared state of the server; cheap to clone. The server listens with it before the model is
/// loaded.
#[derive(Clone, Debug)]
pub struct AppState {
    shared: Arc<Shared>,
}

/// Settings from the command line.
#[derive(Clone, Debug, Default)]
pub struct AppSettings {
    /// Keys of the clients.
    pub keys: ApiKeys,
    /// Keys that give access to the metrics and to nothing else.
    pub metrics_keys: ApiKeys,
    /// Maximum time for a request.
    pub request_timeout: Option<Duration>,
    /// Names of this server, and other sites that may use it.
    pub site: Site,
    /// What pages of those sites may send.
    pub cors: Cors,
    /// Whether clients may see the tokenizer's settings and the chat template.
    pub tokenizer_info: TokenizerInfoAccess,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// Memory that requests may hold before the engine has them.
    pub request_memory: RequestMemory,
}

/// Whether clients may see the tokenizer's settings and the chat template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenizerInfoAccess {
    /// They may.
    On,
    /// They may not.
    #[default]
    Off,
}

#[derive(Debug)]
struct Shared {
    model: OnceLock<Arc<ServedModel>>,
    settings: AppSettings,
    /// Closed while draining. Each generating request holds a token until its last byte.
    running: TaskTracker,
    blocking_pool: BlockingPool,
    metrics: Arc<Metrics>,
    auth_failures: AuthFailures,
}

/// Held while a request generates; draining waits for it.
#[derive(Debug)]
pub(crate) struct Ticket {
    _token: TaskTrackerToken,
    /// Memory of the request's images, which the engine keeps while the request runs.
    held: Vec<Charge>,
}

impl Ticket {
    /// Keeps memory charged as long as the request generates.
    pub(crate) fn hold(&mut self, charges: impl IntoIterator<Item = Charge>) {
        self.held.extend(charges);
    }
}

/// The server's state, for an orchestrator's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Accepts requests.
    Ready,
    /// The model is not loaded yet.
    Loading,
    /// Rejects new requests and finishes the running ones.
    Draining,
    /// Must be restarted.
    Dead,
}

impl AppState {
    /// Creates a server without a model yet. Requests may take at most `request_timeout`, and
    /// unlimited memory.
    pub fn new(keys: ApiKeys, request_timeout: Option<Duration>) -> Self {
        Self::with(AppSettings {
            keys,
            request_timeout,
            ..AppSettings::default()
        })
    }

    /// Does the same with a memory budget for requests.
    pub fn within(
        request_memory: RequestMemory,
        keys: ApiKeys,
        request_timeout: Option<Duration>,
    ) -> Self {
        Self::with(AppSettings {
            keys,
            request_timeout,
            request_memory,
            ..AppSettings::default()
        })
    }

    /// Creates a server without a model yet.
    pub fn with(settings: AppSettings) -> Self {
        let shared = Shared {
            model: OnceLock::new(),
            settings,
            running: TaskTracker::new(),
            blocking_pool: BlockingPool::new(),
            metrics: Arc::new(Metrics::new()),
            auth_failures: AuthFailures::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Includes the lines that `log` loses in the metrics.
    pub fn count_dropped_lines_of(&self, log: &Log) {
        self.shared.metrics.count_dropped_lines_of(log);
    }

    /// Starts to serve `model`.
    ///
    /// # Panics
    /// If a model was already set: it never changes while the server runs.
    pub fn set_model(&self, model: ServedModel) {
        let set = self.shared.model.set(Arc::new(model));
        assert!(set.is_ok(), "a server gets its model once");
    }

    /// Returns the model.
    ///
    /// # Errors
    /// 503 while it loads.
    pub(crate) fn model(&self) -> Result<&Arc<ServedModel>, ApiError> {
        self.shared.model.get().ok_or_else(ApiError::loading)
    }

    /// Admits a request that generates.
    ///
    /// # Errors
    /// 503 while the model loads and once the server drains.
    pub(crate) fn admit(&self) -> Result<(Arc<ServedModel>, Ticket), ApiError> {
        let model = Arc::clone(self.model()?);
        // The token comes first: a drain that begins now either waits for it or is seen below.
        let token = self.shared.running.token();
        if self.shared.running.is_closed() {
            return Err(Error::Draining.into());
        }
        let ticket = Ticket {
            _token: token,
            held: Vec::new(),
        };
        Ok((model, ticket))
    }

    /// Rejects new requests from now on, and waits until the running ones have ended.
    pub async fn drain(&self) {
        self.shared.running.close();
        self.shared.running.wait().await;
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let Some(model) = self.shared.model.get() else {
            return Readiness::Loading;
        };
        match model.engine.state() {
            EngineState::Dead => Readiness::Dead,
            EngineState::Draining => Readiness::Draining,
            EngineState::Ready if self.shared.running.is_closed() => Readiness::Draining,
            EngineState::Ready => Readiness::Ready,
        }
    }

    pub(crate) fn keys(&self) -> &ApiKeys {
        &self.shared.settings.keys
    }

    pub(crate) fn metrics_keys(&self) -> &ApiKeys {
        &self.shared.settings.metrics_keys
    }

    pub(crate) fn auth_failures(&self) -> &AuthFailures {
        &self.shared.auth_failures
    }

    pub(crate) fn site(&self) -> &Site {
        &self.shared.settings.site
    }

    pub(crate) fn tokenizer_info(&self) -> TokenizerInfoAccess {
        self.shared.settings.tokenizer_info
    }

    /// Returns the number of requests that generate.
    pub(crate) fn num_generating(&self) -> usize {
        self.shared.running.len()
    }

    pub(crate) fn cors(&self) -> &Cors {
        &self.shared.settings.cors
    }

    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        self.shared.settings.connections
    }

    pub(crate) fn blocking_pool(&self) -> &BlockingPool {
        &self.shared.blocking_pool
    }

    pub(crate) fn request_memory(&self) -> &RequestMemory {
        &self.shared.settings.request_memory
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        self.shared.settings.request_timeout
    }
}
