//! The `medgemma` binary: arguments → config → log → socket → model → serve → drain.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use medgemma::api::{self, ApiKeys, AppState};
use medgemma::config::{self, Command, LogConfig, LogFormat, ModelChoice, ServeConfig};
use medgemma::engine::EngineExit;
use medgemma::registry::{self, Catalog};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The engine stopped after a fault: an orchestrator should start the process anew.
const EXIT_FAULT: u8 = 70;
/// A second signal cut short what was running.
const EXIT_INTERRUPTED: u8 = 130;

/// After a fault, how long clients may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let command = match config::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    let outcome = match command {
        Command::Models(file) => list_models(file.as_deref()),
        Command::Serve(config) => serve(&config),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("medgemma: {message}");
        ExitCode::FAILURE
    })
}

/// Prints what `serve` knows by name.
fn list_models(file: Option<&Path>) -> Result<ExitCode, String> {
    let catalog = Catalog::open(file).map_err(|error| error.to_string())?;
    // A reader that closed its end has seen enough.
    let _ = write!(io::stdout(), "{}", registry::listing(&catalog));
    Ok(ExitCode::SUCCESS)
}

fn serve(config: &ServeConfig) -> Result<ExitCode, String> {
    start_log(&config.log);
    if config.model_choice == ModelChoice::Default {
        tracing::info!(
            model = config.model,
            "no model was named: serving the demo, whose words are noise; `medgemma models` lists \
             others"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot start: {error}"))?;
    let exit = runtime.block_on(run(config));
    // A load that was cut short runs on in its thread until the process ends.
    runtime.shutdown_background();
    exit
}

async fn run(config: &ServeConfig) -> Result<ExitCode, String> {
    let address = (config.host.as_str(), config.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {}:{}: {error}", config.host, config.port))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("cannot tell which address is listened on: {error}"))?;
    if config.api_keys.is_empty() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "whoever can reach this address can use the server: set --api-key, or --host 127.0.0.1"
        );
    }
    let mut signals = Signals::listen().map_err(|error| format!("no signals: {error}"))?;

    // Probes are answered while the model loads.
    let app = AppState::new(ApiKeys::new(&config.api_keys));
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = tokio::spawn(api::serve(listener, app.clone(), async {
        // Either way, asked or dropped, it is time.
        let _ = stopped.await;
    }));

    let settings = config.clone();
    let load = spawn_blocking(move || registry::load(&settings));
    let loaded = tokio::select! {
        loaded = load => loaded.map_err(|error| format!("loading failed: {error}"))?,
        () = signals.next() => {
            tracing::info!("stopped while loading");
            server.abort();
            return Ok(ExitCode::SUCCESS);
        }
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            server.abort();
            return Err(error.to_string());
        }
    };
    let engine = loaded.model.engine.clone();
    app.set_model(loaded.model);
    announce(&format!("http://{address}"));

    let mut engine_end = spawn_blocking(move || loaded.engine.join());
    tokio::select! {
        () = signals.next() => {}
        exit = &mut engine_end => {
            // Nobody drained it. Streams have their errors; let them reach the clients.
            tracing::error!(?exit, "the engine has stopped");
            drop(stop);
            let _ = timeout(LAST_WORDS, server).await;
            return Ok(ExitCode::from(EXIT_FAULT));
        }
    }
    tracing::info!("stopping: what runs is finished first; a second signal stops at once");
    drop(stop);
    tokio::select! {
        _ = &mut server => {}
        () = signals.next() => {
            tracing::warn!("stopped at once");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
    }
    engine.drain();
    match engine_end.await {
        Ok(EngineExit::Drained) => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(EXIT_FAULT)),
    }
}

/// The line that scripts wait for.
fn announce(url: &str) {
    tracing::info!(url, "listening");
    // Nobody has to read it.
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "listening on {url}").and_then(|()| stdout.flush());
}

fn start_log(config: &LogConfig) {
    use tracing_subscriber::EnvFilter;

    // Of the libraries only what is wrong: some log what they are given.
    let filter = EnvFilter::new(format!("warn,medgemma={}", config.level.as_str()));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match config.format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Requests from outside to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
