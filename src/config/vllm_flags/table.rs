//! The flags of vLLM that are not options here, and how each is handled: one line a flag, in the
//! order of vLLM's help. `vllm-0.33.txt` beside this file lists all of vLLM's; a test compares
//! them.

use super::Form::{self, Switch, Value, Values};
use super::Rule::{self, Needless, Object, Only};
use super::VllmFlag;

// What is said of several flags. A reason follows "is not needed: " or "is not supported: ".
const ONE_GPU: &str = "only one GPU is used. Start one server for each GPU behind a router, or serve a model that fits one";
const ALONE: &str = "only one GPU is used";
const ADAPTERS: &str = "adapters are not loaded. Merge the adapter into its model (PEFT: merge_and_unload) and serve the merged directory";
const TLS: &str = "the server speaks plain HTTP. Put a proxy that ends TLS in front of it (nginx, Caddy, Traefik)";
const HTTP: &str = "the server speaks HTTP over TCP: leave it out, or put a proxy in front of it";
const NO_FETCHING: &str = "images come in the request as data URIs; nothing is fetched or read because a request names it. Leave it out";
const LOGGING: &str =
    "the log never holds prompts or answers; --log-level says how much of the rest it holds";
const LOG_FILE: &str = "the log goes to stderr: --log-format and --log-level say how";
const FIGURES: &str = "figures are at /metrics, not in the log";
const TOOLS: &str = "tools can be called in any chat; --tool-format says how calls are written";
const CODE: &str = "code is not loaded: leave it out";
const NO_REMOTE_CODE: &str = "code that comes with a model is never run";
const CONFIG_COUNTS: &str = "config.json is used as it is. Change it in a copy of the directory";
const QUANTISED: &str = "weights are computed in bf16 or f32 as they are stored. Leave it out and serve the original checkpoint; --max-model-len and --max-num-seqs save memory";
const CACHE_NUMBERS: &str = "the cache is bf16 on a GPU and f32 on the CPU. Leave it out; a lower --max-model-len or --max-num-seqs saves memory";
const CACHE_STAYS: &str = "the KV cache is not transferred between servers: leave it out";
const OFFLOADING: &str =
    "weights stay where they are computed. Serve a smaller model, or use --device cpu";
const NOTHING_OFFLOADED: &str = "weights and the KV cache stay where they are computed";
const NO_EXPERTS: &str = "the models that are served have no experts";
const NO_STATE: &str =
    "the models that are served have attention in every layer, and nothing like Mamba";
const KERNELS: &str =
    "there is one kernel for each operation and device, compiled for the GPU by itself";
const GRAPHS: &str =
    "on a GPU, steps of any length are captured as CUDA graphs, which does not change answers";
const LAYOUT: &str = "blocks of the KV cache have 32 tokens here, which changes no answer";
const NO_VIDEO: &str = "prompts hold text and images, no video";
const PREPARED_HERE: &str = "images are prepared on the CPU, in the same process";
const PREPARED_AS_TRAINED: &str = "images are prepared as the checkpoint says: leave it out";
const NO_SLEEP: &str = "the model stays loaded: stop the server to free the GPU";
const GENERATES: &str = "only text generation is supported: leave it out";
const SPECULATION: &str = "speculative decoding is not supported: leave it out";
const TRACES: &str =
    "traces are not sent: leave it out. Each request's times are in the log and at /metrics";
const NO_COHERE: &str = "Cohere's routes and formats are not served";
const NO_SCORES: &str = "scoring is not supported";
const OPERATOR_SAYS: &str = "requests cannot override the operator's settings: leave it out";
const FAULTS: &str =
    "a fault ends the process with exit code 70, so that it can be restarted: leave it out";

/// Each flag once, in the order of vLLM's help; at the end those that vLLM had once.
#[rustfmt::skip]
pub(super) const FLAGS: &[VllmFlag] = &[
    // Frontend
    values("lora-modules", Only(&[], ADAPTERS)),
    value("chat-template-content-format", Only(&["auto", "openai"], "it follows from the template: leave it out")),
    switch("trust-request-chat-template", Only(&["false"], "a request never brings a template: --chat-template sets one")),
    switch("trust-request-mm-kwargs", Only(&["false"], OPERATOR_SAYS)),
    value("default-chat-template-kwargs", Only(&["{}"], "use --thinking, or send chat_template_kwargs with each request")),
    value("reasoning-effort-map", Only(&["{}"], "all efforts produce the same reasoning prompt; a request can limit it with its thinking budget: leave it out")),
    value("response-role", Only(&["assistant"], "answers are the assistant's: leave it out")),
    switch("return-tokens-as-token-ids", Only(&["false"], "clients ask for it: return_tokens_as_token_ids")),
    switch("enable-auto-tool-choice", Needless(TOOLS)),
    switch("exclude-tools-when-tool-choice-none", Needless("tools are left out of the prompt where tool_choice is none")),
    value("tool-call-parser", Needless(TOOLS)),
    value("tool-parser-plugin", Only(&[], CODE)),
    value("tool-strict-level", Only(&["auto"], "clients ask for it: tool_choice \"required\" keeps a call to its schema")),
    value("tool-server", Only(&[], "tools are called by the client: leave it out")),
    value("max-log-len", Needless(LOGGING)),
    switch("enable-prompt-tokens-details", Needless("every answer's usage includes its cached tokens")),
    switch("enable-per-request-metrics", Only(&["false"], "answers do not tell their times: the log and /metrics do")),
    switch("enable-server-load-tracking", Needless("/load always reports it")),
    switch("enable-force-include-usage", Only(&["false"], "clients ask for it: stream_options.include_usage")),
    value("sse-keep-alive-interval", Needless("a stream has a comment after each 10 s without a token")),
    switch("enable-log-outputs", Needless(LOGGING)),
    switch("enable-log-deltas", Needless(LOGGING)),
    switch("cohere-is-reasoning-model", Needless(NO_COHERE)),
    value("cohere-format", Needless(NO_COHERE)),
    value("anthropic-disabled-thinking-effort", Only(&["auto", "none"], "thinking that is disabled is off: leave it out")),
    switch("log-error-stack", Needless(LOGGING)),
    switch("tokens-only", Only(&["false"], "text is taken and given: leave it out")),
    switch("enable-scale-out", Only(&["false"], "a server renders and computes by itself: leave it out")),
    value("fingerprint-mode", Only(&["full", "hash"], "system_fingerprint identifies the build and the model: leave it out")),
    value("fingerprint-value", Only(&[], "system_fingerprint identifies the build and the model: leave it out")),
    value("grpc-port", Only(&[], HTTP)),
    value("data-parallel-supervisor-port", Needless(ALONE)),
    value("dp-supervisor-probe-interval-s", Needless(ALONE)),
    value("dp-supervisor-probe-timeout-s", Needless(ALONE)),
    value("dp-supervisor-probe-failure-threshold", Needless(ALONE)),
    value("uds", Only(&[], HTTP)),
    value("uvicorn-log-level", Needless("--log-level is for the whole log")),
    switch("disable-uvicorn-access-log", Needless(LOGGING)),
    value("disable-access-log-for-endpoints", Needless("the log has a line for each answer and each refusal, and none for probes")),
    value("ssl-keyfile", Only(&[], TLS)),
    value("ssl-certfile", Only(&[], TLS)),
    value("ssl-ca-certs", Only(&[], TLS)),
    switch("enable-ssl-refresh", Only(&["false"], TLS)),
    value("ssl-cert-reqs", Only(&["0"], TLS)),
    value("ssl-ciphers", Only(&[], TLS)),
    value("root-path", Only(&["/"], "routes have no prefix. Let the proxy take it off before it passes requests on")),
    value("middleware", Only(&[], "code is not loaded. Use a proxy in front of the server")),
    switch("enable-request-id-headers", Needless("every answer has X-Request-Id")),
    switch("disable-fastapi-docs", Needless("there is no FastAPI")),
    value("h11-max-incomplete-event-size", Needless("a head may have 400 KiB, and bodies have limits of their own")),
    value("h11-max-header-count", Needless("a head may have 100 lines")),
    switch("enable-offline-docs", Needless("/docs needs no network")),
    switch("enable-flash-late-interaction", Needless(NO_SCORES)),
    switch("headless", Only(&["false"], ONE_GPU)),
    value("api-server-count", Only(&["1"], "one process serves HTTP on all cores: leave it out")),
    switch("grpc", Only(&["false"], HTTP)),
    // Model
    value("runner", Only(&["auto", "generate"], GENERATES)),
    value("convert", Only(&["auto", "none"], GENERATES)),
    value("tokenizer", Only(&[], "the model's own tokenizer.json is used. Put another into the directory")),
    value("tokenizer-mode", Only(&["auto", "hf"], "the model's own tokenizer.json is used: leave it out")),
    switch("trust-remote-code", Needless(NO_REMOTE_CODE)),
    value("hf-config-path", Only(&[], "config.json is read from the model's directory: leave it out")),
    value("allowed-local-media-path", Only(&[], NO_FETCHING)),
    values("allowed-media-domains", Only(&[], NO_FETCHING)),
    value("code-revision", Needless(NO_REMOTE_CODE)),
    value("tokenizer-revision", Only(&[], "--revision is for all of a model's files")),
    value("quantization", Only(&["none"], QUANTISED)),
    value("quantization-config", Only(&["{}"], QUANTISED)),
    switch("allow-deprecated-quantization", Needless("weights are served as they are stored")),
    switch("enforce-eager", Needless("on a GPU, steps are always captured as CUDA graphs, which does not change answers; a lower --max-num-seqs reduces their memory")),
    switch("enable-return-routed-experts", Only(&["false"], NO_EXPERTS)),
    switch("return-sampling-mask", Only(&["false"], "answers do not tell it: leave it out")),
    value("max-logprobs", Only(&["20"], "requests may ask for 20 alternatives a token, no more and no fewer: leave it out")),
    value("logprobs-mode", Only(&["raw_logprobs"], "they are the model's own, before temperature and masks: leave it out")),
    switch("use-fp64-gumbel", Only(&["false"], "a token is drawn with 32 random bits for each candidate: leave it out")),
    switch("enable-trace-replay", Only(&["false"], "answers are not replayed: leave it out")),
    switch("disable-sliding-window", Only(&["false"], "the model was trained with its window: leave it out")),
    switch("disable-cascade-attn", Needless("there is no cascade, on vLLM neither")),
    switch("skip-tokenizer-init", Only(&["false"], "text is taken and given: leave it out")),
    switch("enable-prompt-embeds", Only(&["false"], "prompts are text, tokens and images: leave it out")),
    value("config-format", Only(&["auto", "hf"], "config.json is read: leave it out")),
    value("hf-overrides", Only(&["{}"], CONFIG_COUNTS)),
    value("model-class-overrides", Only(&["{}"], CODE)),
    value("pooler-config", Only(&[], GENERATES)),
    value("override-generation-config", Only(&["{}"], "change generation_config.json in a directory of your own, or send the values with each request")),
    switch("enable-sleep-mode", Only(&["false"], NO_SLEEP)),
    value("sleep-mode-backend", Needless(NO_SLEEP)),
    switch("sleep-mode-offload-cudagraph", Needless(NO_SLEEP)),
    values("sleep-preserve-parameter-names", Needless(NO_SLEEP)),
    switch("enable-cumem-allocator", Needless("memory for weights and the cache is taken once, at the start")),
    switch("enable-nccl-comm-suspend", Needless(ALONE)),
    value("model-impl", Needless("Gemma 3 is written once here, and compared with transformers")),
    values("logits-processors", Only(&[], CODE)),
    value("io-processor-plugin", Only(&[], CODE)),
    value("renderer-num-workers", Needless("prompts are made on all cores")),
    // Load
    value("safetensors-load-strategy", Needless("safetensors are mapped into memory")),
    value("safetensors-prefetch-num-threads", Needless("safetensors are mapped into memory")),
    value("safetensors-prefetch-block-size", Needless("safetensors are mapped into memory")),
    value("model-loader-extra-config", Only(&["{}"], "safetensors are mapped into memory: leave it out")),
    values("ignore-patterns", Needless("only the files that are needed are downloaded")),
    switch("use-tqdm-on-load", Needless("a terminal gets a bar and a log gets lines")),
    value("pt-load-map-location", Needless("safetensors are mapped into memory")),
    // Attention, and what is not attention
    value("attention-backend", Needless("there is one attention for each device")),
    value("mamba-backend", Needless(NO_STATE)),
    value("mamba-ssu-algorithm", Needless(NO_STATE)),
    switch("enable-mamba-cache-stochastic-rounding", Needless(NO_STATE)),
    value("mamba-cache-philox-rounds", Needless(NO_STATE)),
    // Reasoning
    value("reasoning-parser", Needless("reasoning is parsed automatically; see --thinking")),
    value("reasoning-parser-plugin", Only(&[], CODE)),
    // Parallel
    value("distributed-executor-backend", Only(&["mp", "uni"], ONE_GPU)),
    value("pipeline-parallel-size", Only(&["1"], ONE_GPU)),
    value("master-addr", Needless(ALONE)),
    value("master-port", Needless(ALONE)),
    value("nnodes", Only(&["1"], ONE_GPU)),
    value("node-rank", Only(&["0"], ONE_GPU)),
    value("distributed-timeout-seconds", Needless(ALONE)),
    value("cpu-distributed-timeout-seconds", Needless(ALONE)),
    switch("numa-bind", Only(&["false"], "start the server with numactl")),
    values("numa-bind-nodes", Only(&[], "start the server with numactl")),
    values("numa-bind-cpus", Only(&[], "start the server with numactl")),
    value("device-ids", Only(&[], "--device cuda:N chooses the GPU")),
    value("tensor-parallel-size", Only(&["1"], ONE_GPU)),
    value("decode-context-parallel-size", Only(&["1"], ONE_GPU)),
    value("dcp-comm-backend", Needless(ALONE)),
    switch("dcp-q-replicate", Needless(ALONE)),
    value("dcp-kv-cache-interleave-size", Needless(ALONE)),
    value("cp-kv-cache-interleave-size", Needless(ALONE)),
    value("prefill-context-parallel-size", Only(&["1"], ONE_GPU)),
    value("data-parallel-size", Only(&["1"], ONE_GPU)),
    value("data-parallel-rank", Only(&["0"], ONE_GPU)),
    value("data-parallel-start-rank", Only(&["0"], ONE_GPU)),
    value("data-parallel-size-local", Only(&["1"], ONE_GPU)),
    value("data-parallel-address", Needless(ALONE)),
    value("data-parallel-rpc-port", Needless(ALONE)),
    value("data-parallel-backend", Needless(ALONE)),
    switch("data-parallel-hybrid-lb", Only(&["false"], ONE_GPU)),
    switch("data-parallel-external-lb", Only(&["false"], ONE_GPU)),
    switch("data-parallel-multi-port-external-lb", Only(&["false"], ONE_GPU)),
    switch("enable-hc-sp", Needless(ALONE)),
    switch("enable-expert-parallel", Needless(NO_EXPERTS)),
    switch("enable-batch-sharded-sampling", Needless(ALONE)),
    switch("enable-ep-weight-filter", Needless(NO_EXPERTS)),
    value("all2all-backend", Needless(NO_EXPERTS)),
    switch("enable-dbo", Needless(ALONE)),
    switch("enable-shm-tensor-arena", Needless(ALONE)),
    value("ubatch-size", Needless(ALONE)),
    switch("enable-elastic-ep", Needless(NO_EXPERTS)),
    value("elastic-ep-max-dp-size", Needless(NO_EXPERTS)),
    value("dbo-decode-token-threshold", Needless(ALONE)),
    value("dp-sync-interval", Needless(ALONE)),
    value("dbo-prefill-token-threshold", Needless(ALONE)),
    switch("disable-nccl-for-dp-synchronization", Needless(ALONE)),
    switch("enable-eplb", Needless(NO_EXPERTS)),
    value("eplb-config", Needless(NO_EXPERTS)),
    value("expert-placement-strategy", Needless(NO_EXPERTS)),
    value("max-parallel-loading-workers", Needless(ALONE)),
    switch("ray-workers-use-nsight", Needless(ALONE)),
    switch("disable-custom-all-reduce", Needless("only one GPU is used")),
    value("worker-cls", Only(&["auto"], CODE)),
    value("worker-extension-cls", Only(&[], CODE)),
    switch("enable-fault-tolerance", Only(&["false"], FAULTS)),
    value("fault-tolerance-config", Only(&["{}"], FAULTS)),
    // Cache
    value("block-size", Needless(LAYOUT)),
    value("kv-cache-dtype", Only(&["auto", "bfloat16"], CACHE_NUMBERS)),
    value("num-gpu-blocks-override", Only(&[], "say how much memory the cache may take: --kv-cache-memory")),
    value("prefix-caching-hash-algo", Needless("blocks are found by BLAKE3 of their tokens, and apart for each key")),
    value("prefix-cache-retention-interval", Needless("blocks are kept until their place is needed")),
    values("kv-cache-dtype-skip-layers", Needless("the cache is not quantised in any layer")),
    switch("kv-sharing-fast-prefill", Needless("no layer shares another's cache in the models that are served")),
    switch("swa-bounded-replay", Needless("layers with a window keep what a prefix needs of it")),
    value("mamba-cache-dtype", Needless(NO_STATE)),
    value("mamba-ssm-cache-dtype", Needless(NO_STATE)),
    value("mamba-block-size", Needless(NO_STATE)),
    value("prefix-match-unit", Needless(LAYOUT)),
    value("mamba-cache-mode", Needless(NO_STATE)),
    switch("enable-mamba-shared-prefix-checkpoint", Needless(NO_STATE)),
    value("replayssm-buffer-len", Needless(NO_STATE)),
    switch("use-replayssm", Needless(NO_STATE)),
    value("kv-offloading-size", Only(&["0"], "preempted sequences are recomputed; there is no swap space: leave it out")),
    value("kv-offloading-backend", Needless(NOTHING_OFFLOADED)),
    // Offloading
    value("offload-backend", Needless(NOTHING_OFFLOADED)),
    value("cpu-offload-gb", Only(&["0"], OFFLOADING)),
    values("cpu-offload-params", Needless(NOTHING_OFFLOADED)),
    value("offload-group-size", Only(&["0"], OFFLOADING)),
    value("offload-num-in-group", Needless(NOTHING_OFFLOADED)),
    value("offload-prefetch-step", Needless(NOTHING_OFFLOADED)),
    values("offload-params", Needless(NOTHING_OFFLOADED)),
    // Images
    switch("language-model-only", Only(&["false"], "use --limit-mm-per-prompt image=0")),
    switch("enable-mm-embeds", Only(&["false"], "images come as images: leave it out")),
    value("media-io-kwargs", Only(&["{}"], PREPARED_AS_TRAINED)),
    value("mm-processor-cache-gb", Only(&[], "use --encoder-cache-memory for the cache of image embeddings")),
    value("mm-processor-cache-type", Needless(PREPARED_HERE)),
    value("mm-hasher-algorithm", Needless("images are hashed with BLAKE3")),
    value("mm-shm-cache-max-object-size-mb", Needless(PREPARED_HERE)),
    switch("mm-encoder-only", Only(&["false"], GENERATES)),
    value("mm-encoder-tp-mode", Needless(ALONE)),
    value("mm-encoder-attn-backend", Needless("there is one attention for each device")),
    value("mm-encoder-attn-dtype", Only(&["auto", "bfloat16"], QUANTISED)),
    value("mm-encoder-fp8-scale-path", Only(&[], QUANTISED)),
    value("mm-encoder-fp8-scale-save-path", Only(&[], QUANTISED)),
    value("mm-encoder-fp8-scale-save-margin", Needless("the vision encoder is not quantised")),
    switch("interleave-mm-strings", Needless("images stand in the prompt where the request has them")),
    switch("skip-mm-profiling", Needless("what images take is known beforehand")),
    value("video-pruning-rate", Needless(NO_VIDEO)),
    value("video-pruning-method", Needless(NO_VIDEO)),
    value("mm-tensor-ipc", Needless(PREPARED_HERE)),
    value("mm-processor-device", Needless(PREPARED_HERE)),
    value("mm-ipc-gpu-memory-gb", Needless(PREPARED_HERE)),
    switch("mm-device-do-normalize", Needless(PREPARED_HERE)),
    // Adapters
    switch("enable-lora", Only(&["false"], ADAPTERS)),
    value("max-loras", Only(&[], ADAPTERS)),
    value("max-lora-rank", Only(&[], ADAPTERS)),
    value("lora-dtype", Only(&["auto"], ADAPTERS)),
    switch("enable-tower-connector-lora", Only(&["false"], ADAPTERS)),
    value("max-cpu-loras", Only(&[], ADAPTERS)),
    switch("fully-sharded-loras", Only(&["false"], ADAPTERS)),
    values("lora-target-modules", Only(&[], ADAPTERS)),
    value("default-mm-loras", Only(&[], ADAPTERS)),
    switch("specialize-active-lora", Only(&["false"], ADAPTERS)),
    switch("enable-mixed-moe-lora-format", Only(&["false"], ADAPTERS)),
    switch("enable-moe-shared-loras", Only(&["false"], ADAPTERS)),
    value("max-lora-cls-labels", Only(&[], ADAPTERS)),
    // Log and figures
    value("logging-config", Object(&[
        ("log_level", Only(&[], "use --log-level")),
        ("formatter", Only(&["text"], "use --log-format")),
        ("configure_logging", Needless(LOG_FILE)),
    ], LOG_FILE)),
    value("log-config-file", Only(&[], LOG_FILE)),
    value("show-hidden-metrics-for-version", Needless("every metric is shown")),
    value("otlp-traces-endpoint", Only(&[], TRACES)),
    values("collect-detailed-traces", Only(&[], TRACES)),
    value("per-request-spec-decode-metrics", Only(&["none"], SPECULATION)),
    switch("kv-cache-metrics", Only(&["false"], "of the KV cache /metrics has its blocks, its use and the prefixes that were found")),
    value("kv-cache-metrics-sample", Needless("every request counts at /metrics")),
    value("custom-histogram-buckets", Only(&["{}"], "buckets are vLLM's own: leave it out")),
    switch("cudagraph-metrics", Only(&["false"], "steps are counted at /metrics, not their graphs: leave it out")),
    switch("enable-layerwise-nvtx-tracing", Only(&["false"], "use Nsight without it: kernels have names")),
    switch("enable-mfu-metrics", Only(&["false"], "medgemma bench measures: leave it out")),
    switch("enable-logging-iteration-details", Needless(FIGURES)),
    value("jit-monitor-mode", Needless(KERNELS)),
    switch("jit-monitor-verbose", Needless(KERNELS)),
    // Scheduler
    value("max-num-scheduled-tokens", Only(&[], "use --max-num-batched-tokens")),
    value("max-num-active-seqs", Only(&[], "use --max-num-seqs")),
    value("max-num-queued-reqs", Only(&[], "use --max-queued-requests, which counts those that wait besides the --max-num-seqs that run")),
    value("max-num-queued-tokens", Only(&[], "use --max-queued-requests, which counts requests")),
    value("long-prefill-token-threshold", Needless("long prompts take several steps, of --max-num-batched-tokens each")),
    switch("long-prefill-token-threshold-adaptive", Needless("long prompts take several steps, of --max-num-batched-tokens each")),
    value("scheduling-policy", Only(&["priority", "fcfs"], "a request's priority counts, and within one who came first: leave it out")),
    switch("enable-chunked-prefill", Only(&["true"], "long prompts always take several steps, of --max-num-batched-tokens each: leave it out")),
    switch("disable-chunked-mm-input", Needless("an image is always computed in one step")),
    value("scheduler-cls", Only(&[], CODE)),
    switch("scheduler-reserve-full-isl", Needless("preempted sequences are recomputed, which does not change answers")),
    value("watermark", Needless("preempted sequences are recomputed, which does not change answers")),
    value("prefill-schedule-interval", Needless("every step computes prompts and answers")),
    switch("disable-hybrid-kv-cache-manager", Needless("layers with a window keep only that, which changes no answer")),
    switch("async-scheduling", Needless("on a GPU steps are planned ahead")),
    value("stream-interval", Only(&["1"], "tokens are sent as they come: leave it out")),
    // How vLLM compiles and computes
    values("cudagraph-capture-sizes", Needless(GRAPHS)),
    value("max-cudagraph-capture-size", Needless(GRAPHS)),
    value("ir-op-priority", Needless(KERNELS)),
    switch("enable-flashinfer-autotune", Needless(KERNELS)),
    switch("monokernel", Needless(KERNELS)),
    value("moe-backend", Needless(NO_EXPERTS)),
    value("linear-backend", Needless(KERNELS)),
    value("sparse-indexer-topk-backend", Needless(KERNELS)),
    value("speculative-config", Only(&["{}"], SPECULATION)),
    value("spec-method", Only(&[], SPECULATION)),
    value("spec-model", Only(&[], SPECULATION)),
    value("spec-tokens", Only(&["0"], SPECULATION)),
    value("watermark-config", Only(&["{}"], "answers carry no mark: leave it out")),
    value("diffusion-config", Only(&["{}"], GENERATES)),
    value("kv-transfer-config", Only(&[], CACHE_STAYS)),
    value("kv-events-config", Only(&[], CACHE_STAYS)),
    value("ec-transfer-config", Only(&[], CACHE_STAYS)),
    value("ec-manager-config", Only(&["{}"], "use --encoder-cache-memory for the cache of image embeddings")),
    value("compilation-config", Needless("kernels are compiled for the GPU by themselves")),
    value("attention-config", Needless("there is one attention for each device")),
    value("engram-config", Needless(NO_STATE)),
    value("reasoning-config", Object(&[
        ("reasoning_parser", Needless("reasoning is parsed automatically; see --thinking")),
    ], "reasoning markers are the model's own: leave it out")),
    value("kernel-config", Needless(KERNELS)),
    value("additional-config", Only(&["{}"], CODE)),
    value("structured-outputs-config", Object(&[
        ("backend", Needless("llguidance keeps answers to schemas")),
        ("disable_any_whitespace", Only(&["false"], "JSON may hold spaces: leave it out")),
        ("disable_additional_properties", Needless("objects have only the properties that their schema names")),
        ("reasoning_parser", Needless("reasoning is parsed automatically; see --thinking")),
        ("enable_in_reasoning", Only(&["false"], "reasoning is never constrained: leave it out")),
    ], "llguidance keeps answers to schemas: leave it out")),
    value("aux-output-config", Only(&["{}"], NO_EXPERTS)),
    value("profiler-config", Only(&["{}"], "medgemma bench measures: leave it out")),
    value("watchdog-config", Only(&["{}"], "use --step-timeout")),
    value("optimization-level", Needless(KERNELS)),
    value("performance-mode", Needless(KERNELS)),
    value("weight-transfer-config", Only(&[], "a server keeps the weights that it was started with: leave it out")),
    // Others
    switch("disable-log-stats", Needless(FIGURES)),
    switch("aggregate-engine-logging", Needless(FIGURES)),
    switch("fail-on-environ-validation", Only(&["false"], "unknown variables are reported in the log: leave it out")),
    value("gdn-prefill-backend", Needless(NO_STATE)),
    value("kda-prefill-backend", Needless(NO_STATE)),
    value("kda-decode-backend", Needless(NO_STATE)),
    switch("enable-log-requests", Needless(LOGGING)),
    // What vLLM had once
    switch("disable-frontend-multiprocessing", Needless("there is one process anyway")),
    value("task", Only(&["auto", "generate"], GENERATES)),
    value("rope-scaling", Only(&["{}"], CONFIG_COUNTS)),
    value("rope-theta", Only(&[], CONFIG_COUNTS)),
    value("guided-decoding-backend", Needless("llguidance keeps answers to schemas")),
    value("swap-space", Needless("preempted sequences are recomputed; there is no swap space")),
    switch("calculate-kv-scales", Only(&["false"], "the cache is not quantised: leave it out")),
    switch("disable-mm-preprocessor-cache", Only(&["false"], "a small --encoder-cache-memory reduces the cache of image embeddings")),
    value("num-scheduler-steps", Needless("on a GPU steps are planned ahead")),
    value("max-seq-len-to-capture", Needless("steps of any length are captured")),
];

/// Names of the last section: vLLM's list does not have them any more.
#[cfg(test)]
pub(super) const NUM_PAST: usize = 10;

const fn value(name: &'static str, rule: Rule) -> VllmFlag {
    flag(name, Value, rule)
}

const fn values(name: &'static str, rule: Rule) -> VllmFlag {
    flag(name, Values, rule)
}

const fn switch(name: &'static str, rule: Rule) -> VllmFlag {
    flag(name, Switch, rule)
}

const fn flag(name: &'static str, form: Form, rule: Rule) -> VllmFlag {
    VllmFlag { name, form, rule }
}
