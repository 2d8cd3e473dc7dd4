//! The `medgemma` binary: arguments → config → log → socket → model → serve → drain.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use medgemma::api::{self, ApiKeys, AppState};
use medgemma::batch::{Batch, BatchError, BatchPlan, BatchSummary};
use medgemma::bench;
use medgemma::config::{
    self, BatchConfig, Bench, BenchConfig, Command, ComputeConfig, KernelsConfig, LogConfig,
    LogFormat, ModelChoice, Place, ReportFormat, ServeConfig,
};
use medgemma::engine::EngineExit;
use medgemma::registry::{self, Catalog};
use medgemma::selftest;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// All lines of a batch have a result, some of them errors.
const EXIT_SOME_FAILED: u8 = 3;
/// The engine stopped after a fault: an orchestrator should start the process anew.
const EXIT_FAULT: u8 = 70;
/// A second signal cut short what was running.
const EXIT_INTERRUPTED: u8 = 130;

/// After a fault, how long clients may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// After the last token, how long clients may take to read it.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let command = match config::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    let outcome = match command {
        Command::Models(file) => list_models(file.as_deref()),
        Command::Kernels(config) => compile_kernels(&config),
        Command::Bench(config) => measure(&config),
        Command::RunBatch(config) => run_batch(&config),
        Command::SelfTest(compute) => check_card(&compute),
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

/// Compiles kernels ahead of time and says what came of it.
fn compile_kernels(config: &KernelsConfig) -> Result<ExitCode, String> {
    let compiled = registry::compile_kernels(config).map_err(|error| error.to_string())?;
    let _ = writeln!(
        io::stdout(),
        "{} kernels for {} architectures: {} KiB in {:.1} s",
        compiled.num_variants,
        compiled.num_archs,
        compiled.num_bytes.div_ceil(1024),
        compiled.elapsed.as_secs_f32()
    );
    Ok(ExitCode::SUCCESS)
}

/// Measures, and prints the figures.
fn measure(config: &BenchConfig) -> Result<ExitCode, String> {
    let report = match &config.what {
        Bench::Decode(settings, plan) => bench::decode(settings, plan),
        Bench::Prefill(settings, plan) => bench::prefill(settings, plan),
        Bench::Load(settings) => bench::load(settings),
        Bench::Serve(plan) => runtime()?.block_on(bench::serve(plan)),
    };
    let report = report.map_err(|error| error.to_string())?;
    let text = match config.format {
        ReportFormat::Text => report.to_string(),
        ReportFormat::Json => report.to_json(),
    };
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Compares a card with the CPU, operation by operation.
fn check_card(compute: &ComputeConfig) -> Result<ExitCode, String> {
    let (mut num_checks, mut num_failed) = (0, 0);
    let passed = selftest::on_card(compute, &mut |check| {
        num_checks += 1;
        num_failed += usize::from(!check.passed());
        let _ = writeln!(io::stdout(), "{check}");
    });
    let passed = passed.map_err(|error| error.to_string())?;
    let _ = writeln!(io::stdout(), "{num_checks} checks, {num_failed} failed");
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Answers a file of requests.
fn run_batch(config: &BatchConfig) -> Result<ExitCode, String> {
    start_log(&config.serve.log);
    let plan = BatchPlan {
        input: config.input.clone(),
        output: config.output.clone(),
        num_at_a_time: NonZeroUsize::new(config.serve.limits.max_num_seqs)
            .expect("the option takes no 0"),
    };
    // What is wrong with the files is said before the model loads.
    let batch = Batch::open(&plan).map_err(|error| error.to_string())?;
    if plan.output == Place::Pipe {
        eprintln!("results go to stdout: if this is stopped, it starts from the beginning");
    }
    let runtime = runtime()?;
    let exit = runtime.block_on(answer_all(config, batch));
    runtime.shutdown_background();
    exit
}

async fn answer_all(config: &BatchConfig, batch: Batch) -> Result<ExitCode, String> {
    let mut signals = Signals::listen().map_err(|error| format!("no signals: {error}"))?;
    let num_left = batch.num_left();
    let work = async {
        if num_left == 0 {
            // Nothing to ask: no model has to load.
            return Ok(batch.run(axum::Router::new()).await);
        }
        let settings = config.serve.clone();
        let loaded = spawn_blocking(move || registry::load(&settings)).await;
        let loaded = loaded.map_err(|error| format!("loading failed: {error}"))?;
        let loaded = loaded.map_err(|error| error.to_string())?;
        let app = AppState::new(ApiKeys::default(), config.serve.timeouts.request);
        let engine = loaded.model.engine.clone();
        app.set_model(loaded.model);
        let outcome = batch.run(api::router(app)).await;
        engine.drain();
        // Its thread has nothing left to do; how it ends changes no result.
        let _ = spawn_blocking(move || loaded.engine.join()).await;
        Ok::<_, String>(outcome)
    };
    let outcome = tokio::select! {
        outcome = work => outcome?,
        () = signals.next() => {
            eprintln!("stopped; the same command goes on from here");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
    };
    match outcome {
        Ok(summary) => {
            eprintln!("{}", told(&summary));
            Ok(match summary.num_failed {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_SOME_FAILED),
            })
        }
        Err(error @ BatchError::ServerStopped { .. }) => {
            eprintln!("medgemma: {error}");
            Ok(ExitCode::from(EXIT_FAULT))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn told(summary: &BatchSummary) -> String {
    let BatchSummary {
        num_lines,
        num_present,
        num_answered,
        num_failed,
        output_tokens,
        elapsed,
    } = *summary;
    let seconds = elapsed.as_secs_f64();
    let pace = output_tokens as f64 / seconds.max(1e-3);
    format!(
        "{num_lines} lines: {num_answered} answered, {num_failed} failed, {num_present} there \
         before; {output_tokens} tokens in {seconds:.1} s, {pace:.0} a second"
    )
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot start: {error}"))
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
    let runtime = runtime()?;
    let exit = runtime.block_on(run(config));
    // A load that was cut short runs on in its thread until the process ends.
    runtime.shutdown_background();
    exit
}

async fn run(config: &ServeConfig) -> Result<ExitCode, String> {
    let address = (config.host.as_str(), config.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| no_listener(config, &error))?;
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
    let app = AppState::new(ApiKeys::new(&config.api_keys), config.timeouts.request);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(api::serve(listener, app.clone(), async {
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
    tracing::info!(
        "stopping: what runs is finished first, what waits is refused; a second signal stops at \
         once"
    );
    drop(stop);
    engine.drain();
    let drained = async {
        let exit = engine_end.await;
        // The engine is done; the last answers are on their way to clients.
        let _ = timeout(LAST_ANSWERS, server).await;
        exit
    };
    tokio::select! {
        exit = drained => match exit {
            Ok(EngineExit::Drained) => Ok(ExitCode::SUCCESS),
            _ => Ok(ExitCode::from(EXIT_FAULT)),
        },
        // Whatever the device is doing: nobody waits for its thread.
        () = signals.next() => {
            tracing::warn!("stopped at once");
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
    }
}

fn no_listener(config: &ServeConfig, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => ". Another program listens there: choose a port with --port",
        io::ErrorKind::AddrNotAvailable => ". --host must be an address of this machine",
        _ => "",
    };
    format!(
        "cannot listen on {}:{}: {error}{hint}",
        config.host, config.port
    )
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
