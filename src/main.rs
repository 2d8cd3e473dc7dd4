//! The `medgemma` binary: arguments → config → log → socket → model → serve → drain.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use medgemma::api::{
    self, ApiKeys, AppSettings, AppState, ConnectionLimits, Cors, Credentials, KeyLimits,
    RequestMemory, Site, TokenizerInfoAccess,
};
use medgemma::batch::{BatchError, BatchPlan, BatchRun, BatchSummary};
use medgemma::bench;
use medgemma::config::{
    self, BatchConfig, Bench, BenchConfig, ByteSize, Command, ComputeConfig, Consent, CorsConfig,
    KernelsConfig, ModelChoice, ModelsConfig, NetworkConfig, Place, ProbeConfig, PullConfig,
    ReportFormat, RmConfig, ServeConfig,
};
use medgemma::engine::EngineExit;
use medgemma::exit_code::{ExitCode, Failure};
use medgemma::log::Log;
use medgemma::probe;
use medgemma::registry::{self, Listing, ServedModel};
use medgemma::selftest;
use medgemma::terminal::{self, AuthMode, Prompts, StartupBanner};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// After a fault, maximum time for sending the errors to clients.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// After the last token, maximum time for clients to read it.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Message of an interrupted run that can be resumed.
const STOPPED: &str = "stopped; run the same command to resume";

type Outcome = Result<ExitCode, Failure>;

fn main() -> std::process::ExitCode {
    let command = match config::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    let outcome = match command {
        Command::Pull(config) => pull(&config),
        Command::Models(config) => list_models(&config),
        Command::Rm(config) => remove(&config),
        Command::Ready(config) => ask_whether_ready(&config),
        Command::Kernels(config) => compile_kernels(&config),
        Command::GrammarWorker => work_on_grammars(),
        Command::TemplateWorker => render_a_template(),
        Command::Bench(config) => measure(&config),
        Command::RunBatch(config) => logged(&config.serve, |log| run_batch(&config, log)),
        Command::SelfTest(compute) => check_gpu(&compute),
        Command::Serve(config) => logged(&config, |log| serve(&config, log)),
    };
    let code = outcome.unwrap_or_else(|failure| {
        terminal::tell_failure(&failure);
        failure.code
    });
    code.into()
}

/// Writes a line to stderr. If that fails, it is ignored.
fn say(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// A failure without an exit code of its own.
fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Failure, what.to_string())
}

/// Checks whether a server is ready.
fn ask_whether_ready(config: &ProbeConfig) -> Outcome {
    let asked = runtime()?.block_on(probe::ready(&config.url, config.timeout));
    asked.map_err(failed)?;
    let _ = writeln!(io::stdout(), "ready");
    Ok(ExitCode::Success)
}

/// Downloads a model and prints where it is.
fn pull(config: &PullConfig) -> Outcome {
    let runtime = runtime()?;
    let settings = config.clone();
    let pulled = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            pulled = spawn_blocking(move || registry::pull(&settings)) => {
                Ok::<_, Failure>(Some(pulled.map_err(load_broke)??))
            }
            () = signals.next() => Ok(None),
        }
    });
    // What has come so far is on disk; nobody waits for more.
    runtime.shutdown_background();
    match pulled? {
        Some(pulled) => {
            say(format_args!(
                "{} at {} is here:",
                pulled.repo, pulled.commit
            ));
            let _ = writeln!(io::stdout(), "{}", pulled.dir.display());
            Ok(ExitCode::Success)
        }
        None => {
            if io::stderr().is_terminal() {
                // Below the bars.
                say("");
            }
            say(STOPPED);
            Ok(ExitCode::Interrupted)
        }
    }
}

/// Prints the named models, and those in the cache.
fn list_models(config: &ModelsConfig) -> Outcome {
    let listing = Listing::new(config)?;
    // A reader that closed its end has seen enough.
    let _ = match config.format {
        ReportFormat::Text => write!(io::stdout(), "{listing}"),
        ReportFormat::Json => writeln!(io::stdout(), "{}", listing.to_json()),
    };
    Ok(ExitCode::Success)
}

/// Removes a model from the cache.
fn remove(config: &RmConfig) -> Outcome {
    let removal = registry::removal(config)?;
    let what = format!("{} ({})", removal.name(), ByteSize(removal.num_bytes));
    if config.consent == Consent::Ask && io::stdin().is_terminal() {
        let _ = write!(
            io::stderr(),
            "remove {what} from {}? [y/N] ",
            removal.dir().display()
        );
        let mut answer = String::new();
        let _ = io::stdin().read_line(&mut answer);
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            say("nothing was removed");
            return Ok(ExitCode::Failure);
        }
    }
    removal.run()?;
    let _ = writeln!(io::stdout(), "removed {what}");
    Ok(ExitCode::Success)
}

/// Runs the fork server for grammar processes of the server that started this.
fn work_on_grammars() -> Outcome {
    registry::run_grammar_processes().map_err(failed)?;
    Ok(ExitCode::Success)
}

/// Renders a chat template for the server that started this.
fn render_a_template() -> Outcome {
    registry::run_template_process().map_err(failed)?;
    Ok(ExitCode::Success)
}

/// Compiles kernels ahead of time and prints the results.
fn compile_kernels(config: &KernelsConfig) -> Outcome {
    let compiled = registry::compile_kernels(config)?;
    let _ = writeln!(
        io::stdout(),
        "{} kernels for {} architectures: {} KiB in {:.1} s",
        compiled.num_variants,
        compiled.num_archs,
        compiled.num_bytes.div_ceil(1024),
        compiled.elapsed.as_secs_f32()
    );
    Ok(ExitCode::Success)
}

/// Runs a benchmark and prints the results.
fn measure(config: &BenchConfig) -> Outcome {
    if let Bench::Decode(settings, _) | Bench::Prefill(settings, _) | Bench::Load(settings) =
        &config.what
    {
        for note in &settings.notes {
            say(note);
        }
    }
    let report = match &config.what {
        Bench::Decode(settings, plan) => bench::decode(settings, plan),
        Bench::Prefill(settings, plan) => bench::prefill(settings, plan),
        Bench::Load(settings) => bench::load(settings),
        Bench::Serve(plan) => runtime()?.block_on(bench::serve(plan)),
    };
    let report = report?;
    let text = match config.format {
        ReportFormat::Text => report.to_string(),
        ReportFormat::Json => report.to_json(),
    };
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    Ok(ExitCode::Success)
}

/// Compares a GPU with the CPU, operation by operation.
fn check_gpu(compute: &ComputeConfig) -> Outcome {
    let (mut num_checks, mut num_failed) = (0, 0);
    let passed = selftest::on_gpu(compute, &mut |check| {
        num_checks += 1;
        num_failed += usize::from(!check.passed());
        let _ = writeln!(io::stdout(), "{check}");
    });
    let passed = passed?;
    let _ = writeln!(io::stdout(), "{num_checks} checks, {num_failed} failed");
    Ok(if passed {
        ExitCode::Success
    } else {
        ExitCode::Failure
    })
}

/// Runs a file of requests.
fn run_batch(config: &BatchConfig, log: &Log) -> Outcome {
    let plan = BatchPlan {
        input: config.input.clone(),
        output: config.output.clone(),
        num_at_a_time: NonZeroUsize::new(config.serve.limits.max_num_seqs)
            .expect("the option takes no 0"),
    };
    // What is wrong with the files is said before the model loads.
    let batch = BatchRun::open(&plan).map_err(failed)?;
    if plan.output == Place::Pipe {
        log.line("results go to stdout: an interrupted run starts from the beginning");
    }
    let runtime = runtime()?;
    let exit = runtime.block_on(answer_all(config, batch, log));
    runtime.shutdown_background();
    exit
}

async fn answer_all(config: &BatchConfig, batch: BatchRun, log: &Log) -> Outcome {
    let mut signals = Signals::listen()?;
    let num_left = batch.num_left();
    let work = async {
        if num_left == 0 {
            // Nothing to ask: no model has to load.
            return Ok(batch.run(axum::Router::new(), log).await);
        }
        let settings = config.serve.clone();
        let loaded = spawn_blocking(move || registry::load(&settings)).await;
        let loaded = loaded.map_err(load_broke)??;
        let app = AppState::new(ApiKeys::default(), config.serve.timeouts.request);
        let engine = loaded.model.engine.clone();
        app.set_model(loaded.model);
        let outcome = batch.run(api::router(app), log).await;
        engine.drain();
        // Its thread has nothing left to do; how it ends changes no result.
        let _ = spawn_blocking(move || loaded.engine.join()).await;
        Ok::<_, Failure>(outcome)
    };
    let outcome = tokio::select! {
        outcome = work => outcome?,
        () = signals.next() => {
            log.line(STOPPED);
            return Ok(ExitCode::Interrupted);
        }
    };
    match outcome {
        Ok(summary) => {
            log.line(&told(&summary));
            Ok(match summary.num_failed {
                0 => ExitCode::Success,
                _ => ExitCode::SomeFailed,
            })
        }
        Err(error @ BatchError::ServerStopped { .. }) => {
            Err(Failure::new(ExitCode::Fault, error.to_string()))
        }
        Err(error) => Err(failed(error)),
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
        "{num_lines} lines: {num_answered} answered, {num_failed} failed, {num_present} already \
         done; {output_tokens} tokens in {seconds:.1} s, {pace:.0} a second"
    )
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("the runtime cannot start: {error}")))
}

/// The loading thread panicked, which is a bug.
fn load_broke(error: tokio::task::JoinError) -> Failure {
    Failure::new(ExitCode::Fault, format!("loading failed: {error}"))
}

fn serve(config: &ServeConfig, log: &Log) -> Outcome {
    if config.model_choice == ModelChoice::Default {
        tracing::info!(
            model = config.model,
            "no model given: serving the demo model, which was trained on synthetic X-rays only \
             and has no medical use; `medgemma models` lists others"
        );
    }
    let runtime = runtime()?;
    let exit = runtime.block_on(run(config, log));
    // A load that was cut short runs on in its thread until the process ends.
    runtime.shutdown_background();
    exit
}

/// The memory limit of requests. Logs a note if the largest request exceeds it.
fn request_memory(config: &ServeConfig) -> RequestMemory {
    let asked = config.max_request_memory.map(|size| size.0);
    let total = asked.unwrap_or_else(registry::request_memory);
    let memory = match config.image_memory {
        None => RequestMemory::new(total),
        Some(ByteSize(room)) => RequestMemory::with_image_memory(total, room),
    };
    if memory.max_body() < api::MAX_BODY {
        tracing::info!(
            request_memory = %ByteSize(total),
            longest_body = %ByteSize(memory.max_body() as u64),
            "longer requests are rejected; raise --max-request-memory"
        );
    }
    memory
}

async fn run(config: &ServeConfig, log: &Log) -> Outcome {
    let address = (config.host.as_str(), config.port);
    let (listener, address) = listen(address, "--host", "--port").await?;
    let metrics = match &config.network.metrics_address {
        Some((host, port)) => {
            let address = (host.as_str(), *port);
            Some(listen(address, "--metrics-host", "--metrics-port").await?)
        }
        None => None,
    };
    if let Some(file) = &config.url_file
        && let Err(error) = terminal::write_url(file, address)
    {
        // The server works without it; who reads the file will say what they miss.
        tracing::warn!(file = %file.display(), %error, "--url-file cannot be written");
    }
    if config.api_keys.is_empty() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "anyone who can reach this address can use the server: set --api-key, or --host 127.0.0.1"
        );
    }
    let mut signals = Signals::listen()?;

    // Probes are answered while the model loads.
    let network = &config.network;
    // What the operator calls the address is a name of it.
    let hosts = network
        .allowed_hosts
        .iter()
        .chain(own_name(config, address));
    let keys = ApiKeys::new(&config.api_keys)
        .with_preferred(&config.priority_api_keys)
        .with_limits(KeyLimits {
            max_requests: config.key_limits.max_requests,
            max_tokens_per_minute: config.key_limits.max_tokens_per_minute,
        });
    let app = AppState::with(AppSettings {
        keys,
        request_timeout: config.timeouts.request,
        metrics_keys: ApiKeys::new(&network.metrics_keys),
        site: Site::new(hosts, &network.cors.origins),
        cors: cors(&network.cors),
        tokenizer_info: match network.tells_tokenizer {
            true => TokenizerInfoAccess::On,
            false => TokenizerInfoAccess::Off,
        },
        connections: connection_limits(network),
        request_memory: request_memory(config),
    });
    app.count_dropped_lines_of(log);
    if let Some((listener, address)) = metrics {
        tracing::info!(url = format!("http://{address}/metrics"), "metrics");
        if network.metrics_keys.is_empty() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "anyone who can reach this address can read the metrics: set --metrics-key, or \
                 --metrics-host 127.0.0.1"
            );
        }
        // It ends with the process, so that a drain can be watched.
        let end = std::future::pending();
        tokio::spawn(api::serve_metrics(listener, app.clone(), end));
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(api::serve(listener, app.clone(), async {
        // Either way, asked or dropped, it is time.
        let _ = stopped.await;
    }));

    let settings = config.clone();
    let load = spawn_blocking(move || registry::load(&settings));
    let loaded = tokio::select! {
        loaded = load => loaded.map_err(load_broke)?,
        () = signals.next() => {
            tracing::info!("stopped while loading");
            server.abort();
            return Ok(ExitCode::Success);
        }
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            server.abort();
            return Err(error.into());
        }
    };
    let engine = loaded.model.engine.clone();
    let model = loaded.model.names[0].clone();
    let greeting = StartupBanner {
        address,
        model: &model,
        max_model_len: loaded.model.max_model_len,
        prompts: prompts(&loaded.model),
        auth: match config.api_keys.as_slice() {
            [] => AuthMode::Open,
            _ => AuthMode::Locked,
        },
    };
    app.set_model(loaded.model);
    terminal::greet(&greeting);

    let mut engine_end = spawn_blocking(move || loaded.engine.join());
    tokio::select! {
        () = signals.next() => {}
        exit = &mut engine_end => {
            // Nobody drained it. Streams have their errors; let them reach the clients.
            tracing::error!(?exit, "the engine has stopped");
            drop(stop);
            let _ = timeout(LAST_WORDS, server).await;
            return Ok(ExitCode::Fault);
        }
    }
    tracing::info!(
        "shutting down: finishing running requests, rejecting queued ones; a second signal stops \
         at once"
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
            Ok(EngineExit::Drained) => Ok(ExitCode::Success),
            _ => Ok(ExitCode::Fault),
        },
        // Whatever the device is doing: nobody waits for its thread.
        () = signals.next() => {
            tracing::warn!("stopped at once");
            Ok(ExitCode::Interrupted)
        }
    }
}

/// The host name of `--host` for a loopback address, where names are always checked.
fn own_name(config: &ServeConfig, address: SocketAddr) -> Option<&String> {
    let is_name = config.host.parse::<IpAddr>().is_err();
    Some(&config.host).filter(|_| is_name && address.ip().is_loopback())
}

fn cors(config: &CorsConfig) -> Cors {
    let credentials = match config.credentials {
        true => Credentials::Allowed,
        false => Credentials::Withheld,
    };
    Cors::new(
        config.methods.as_deref(),
        config.headers.as_deref(),
        credentials,
    )
}

fn connection_limits(network: &NetworkConfig) -> ConnectionLimits {
    let default = ConnectionLimits::default();
    ConnectionLimits {
        total: network.max_connections.unwrap_or(default.total),
        per_address: network.max_connections_per_address,
        send_timeout: network.send_timeout,
    }
}

/// Opens a listening socket and returns its address. The options are named in errors.
async fn listen(
    address: (&str, u16),
    host_option: &str,
    port_option: &str,
) -> Result<(TcpListener, SocketAddr), Failure> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok::<_, io::Error>((listener, address))
    };
    // Why not, and what to do.
    listening.await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "another program listens there. Stop it, or choose another port: {port_option} 8001"
            ),
            ErrorKind::PermissionDenied => {
                format!("ports below 1024 are the system's: {port_option} 8000")
            }
            _ => format!(
                "{host_option} must be an address of this machine: 127.0.0.1 for itself alone, \
                 0.0.0.0 for the whole network"
            ),
        };
        let (host, port) = address;
        Failure::new(
            ExitCode::NoAddress,
            format!("cannot listen on {host}:{port} ({error}): {advice}"),
        )
    })
}

fn prompts(model: &ServedModel) -> Prompts {
    match (&model.template, &model.images) {
        (None, _) => Prompts::Text,
        (Some(_), None) => Prompts::Chats,
        (Some(_), Some(_)) => Prompts::ChatsWithImages,
    }
}

/// Runs a command that has a log. The log begins with notes about the settings, and ends with the
/// failure, if any.
fn logged(config: &ServeConfig, run: impl FnOnce(&Log) -> Outcome) -> Outcome {
    let log = Log::to_stderr();
    let log = log.map_err(|error| failed(format!("the log cannot start: {error}")))?;
    terminal::start_log(&config.log, &log);
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let code = run(&log).unwrap_or_else(|failure| {
        terminal::log_failure(&log, &failure);
        failure.code
    });
    log.flush(terminal::LAST_LINES);
    Ok(code)
}

/// Signals to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};

        let listen = |kind| signal(kind).map_err(|error| failed(format!("no signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
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
    fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
