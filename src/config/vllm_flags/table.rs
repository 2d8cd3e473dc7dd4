//! The flags of vLLM's that are not options here, and what is made of each.

use super::Form::{self, Switch, Value, Values};
use super::Rule::{self, Needless, Only};
use super::VllmFlag;

const ONE_GPU: &str = "a model is computed on one GPU. Start one server for each GPU behind a \
                        router, or serve a model that fits one";
const ADAPTERS: &str = "adapters are not loaded. Merge the adapter into its model (PEFT: \
                        merge_and_unload) and serve the merged directory";
const TLS: &str = "the server speaks plain HTTP. Put a proxy that ends TLS in front of it \
                   (nginx, Caddy, Traefik)";
const NO_FETCHING: &str = "images come in the request as data URIs; nothing is fetched or read \
                           because a request names it. Leave it out";
const LOGGING: &str = "the log never holds prompts or answers; --log-level says how much of the \
                       rest it holds";
const TOOLS: &str = "tools can be called in any chat; --tool-format says how calls are written";

/// Each flag once, in the order of vLLM's help.
pub(super) const FLAGS: &[VllmFlag] = &[
    // Frontend
    flag(
        "uvicorn-log-level",
        Value,
        Needless("--log-level is for the whole log"),
    ),
    flag("disable-uvicorn-access-log", Switch, Needless(LOGGING)),
    flag(
        "chat-template-content-format",
        Value,
        Only(
            &["auto", "openai"],
            "it follows from the template: leave it out",
        ),
    ),
    flag(
        "trust-request-chat-template",
        Switch,
        Only(
            &["false"],
            "a request never brings a template: --chat-template sets one",
        ),
    ),
    flag(
        "response-role",
        Value,
        Only(&["assistant"], "answers are the assistant's: leave it out"),
    ),
    flag("ssl-keyfile", Value, Only(&[], TLS)),
    flag("ssl-certfile", Value, Only(&[], TLS)),
    flag("ssl-ca-certs", Value, Only(&[], TLS)),
    flag(
        "root-path",
        Value,
        Only(
            &["", "/"],
            "routes have no prefix. Let the proxy take it off before it passes requests on",
        ),
    ),
    flag(
        "middleware",
        Value,
        Only(
            &[],
            "code is not loaded. Use a proxy in front of the server",
        ),
    ),
    flag(
        "disable-frontend-multiprocessing",
        Switch,
        Needless("there is one process anyway"),
    ),
    flag(
        "api-server-count",
        Value,
        Only(&["1"], "one process serves HTTP on all cores: leave it out"),
    ),
    flag(
        "enable-request-id-headers",
        Switch,
        Needless("every answer has X-Request-Id"),
    ),
    flag("enable-auto-tool-choice", Switch, Needless(TOOLS)),
    flag("tool-call-parser", Value, Needless(TOOLS)),
    flag(
        "tool-parser-plugin",
        Value,
        Only(
            &[""],
            "code is not loaded; calls are read without it: leave it out",
        ),
    ),
    flag("disable-log-requests", Switch, Needless(LOGGING)),
    flag("enable-log-requests", Switch, Needless(LOGGING)),
    flag("max-log-len", Value, Needless(LOGGING)),
    flag(
        "disable-log-stats",
        Switch,
        Needless("figures are at /metrics, not in the log"),
    ),
    flag(
        "disable-fastapi-docs",
        Switch,
        Needless("there is no FastAPI"),
    ),
    flag(
        "enable-prompt-tokens-details",
        Switch,
        Needless("every answer's usage tells its cached tokens"),
    ),
    flag(
        "enable-force-include-usage",
        Switch,
        Only(
            &["false"],
            "clients ask for it: stream_options.include_usage",
        ),
    ),
    flag(
        "return-tokens-as-token-ids",
        Switch,
        Only(&["false"], "clients ask for it: return_token_ids"),
    ),
    // Model
    flag(
        "runner",
        Value,
        Only(&["auto", "generate"], "models generate here: leave it out"),
    ),
    flag(
        "task",
        Value,
        Only(&["auto", "generate"], "models generate here: leave it out"),
    ),
    flag(
        "tokenizer",
        Value,
        Only(
            &[],
            "the model's own tokenizer.json is used. Put another into the directory",
        ),
    ),
    flag(
        "tokenizer-mode",
        Value,
        Only(
            &["auto", "hf"],
            "the model's own tokenizer.json is used: leave it out",
        ),
    ),
    flag(
        "trust-remote-code",
        Switch,
        Needless("code that comes with a model is never run"),
    ),
    flag(
        "config-format",
        Value,
        Only(&["auto", "hf"], "config.json is read: leave it out"),
    ),
    flag(
        "hf-overrides",
        Value,
        Only(
            &["{}"],
            "config.json counts as it is. Change it in a directory of your own",
        ),
    ),
    flag(
        "code-revision",
        Value,
        Needless("code that comes with a model is never run"),
    ),
    flag(
        "tokenizer-revision",
        Value,
        Only(&[], "--revision is for all of a model's files"),
    ),
    flag(
        "hf-config-path",
        Value,
        Only(&[], "config.json stands beside the weights: leave it out"),
    ),
    flag(
        "rope-scaling",
        Value,
        Only(
            &["{}"],
            "config.json counts as it is. Change it in a directory of your own",
        ),
    ),
    flag(
        "rope-theta",
        Value,
        Only(
            &[],
            "config.json counts as it is. Change it in a directory of your own",
        ),
    ),
    flag(
        "language-model-only",
        Switch,
        Only(&["false"], "use --limit-mm-per-prompt image=0"),
    ),
    flag("allowed-media-domains", Values, Only(&[], NO_FETCHING)),
    flag("allowed-local-media-path", Value, Only(&[""], NO_FETCHING)),
    flag(
        "quantization",
        Value,
        Only(
            &["none", "None"],
            "weights are computed in bf16 or f32 as they are stored. Leave it out and serve the original checkpoint; --max-model-len and --max-num-seqs save memory",
        ),
    ),
    flag(
        "enforce-eager",
        Switch,
        Only(
            &["false"],
            "steps on a GPU are always recorded as graphs. Leave it out; what they take is in the forecast of memory, and a lower --max-num-seqs takes less",
        ),
    ),
    flag(
        "max-logprobs",
        Value,
        Only(
            &["20"],
            "requests may ask for 20 alternatives a token, no more and no fewer: leave it out",
        ),
    ),
    flag(
        "logprobs-mode",
        Value,
        Only(
            &["raw_logprobs"],
            "they are the model's own, before temperature and masks: leave it out",
        ),
    ),
    flag(
        "override-generation-config",
        Value,
        Only(
            &["{}"],
            "change generation_config.json in a directory of your own, or send the values with each request",
        ),
    ),
    flag(
        "enable-sleep-mode",
        Switch,
        Only(
            &["false"],
            "a server keeps its model: stop it to free the GPU",
        ),
    ),
    flag(
        "disable-sliding-window",
        Switch,
        Only(
            &["false"],
            "the model was trained with its window: leave it out",
        ),
    ),
    flag(
        "skip-tokenizer-init",
        Switch,
        Only(&["false"], "text is taken and given: leave it out"),
    ),
    // Load
    flag(
        "model-loader-extra-config",
        Value,
        Only(&["{}"], "safetensors are mapped into memory: leave it out"),
    ),
    flag(
        "ignore-patterns",
        Values,
        Needless("only the files that are needed are downloaded"),
    ),
    flag(
        "use-tqdm-on-load",
        Switch,
        Needless("a terminal gets a bar and a log gets lines"),
    ),
    // Structured output and thoughts
    flag(
        "reasoning-parser",
        Value,
        Needless("thoughts are told apart where the model has any; --thinking says otherwise"),
    ),
    flag(
        "guided-decoding-backend",
        Value,
        Only(
            &["auto", "guidance"],
            "llguidance keeps answers to schemas: leave it out",
        ),
    ),
    flag(
        "structured-outputs-config",
        Value,
        Only(&["{}"], "llguidance keeps answers to schemas: leave it out"),
    ),
    // Parallel
    flag("tensor-parallel-size", Value, Only(&["1"], ONE_GPU)),
    flag("pipeline-parallel-size", Value, Only(&["1"], ONE_GPU)),
    flag("data-parallel-size", Value, Only(&["1"], ONE_GPU)),
    flag("enable-expert-parallel", Switch, Only(&["false"], ONE_GPU)),
    flag(
        "distributed-executor-backend",
        Value,
        Only(&["mp", "uni"], ONE_GPU),
    ),
    flag(
        "disable-custom-all-reduce",
        Switch,
        Needless("one GPU has nobody to reduce with"),
    ),
    // Cache
    flag(
        "block-size",
        Value,
        Needless("blocks of the KV cache have 32 tokens here, which changes no answer"),
    ),
    flag(
        "swap-space",
        Value,
        Needless("what gives way is computed again, and takes no memory meanwhile"),
    ),
    flag(
        "cpu-offload-gb",
        Value,
        Only(
            &["0"],
            "weights stay where they are computed. Serve a smaller model, or use --device cpu",
        ),
    ),
    flag(
        "kv-cache-dtype",
        Value,
        Only(
            &["auto"],
            "the cache is bf16 on a GPU and f32 on the CPU. Leave it out; a lower --max-model-len or --max-num-seqs saves memory",
        ),
    ),
    flag(
        "num-gpu-blocks-override",
        Value,
        Only(
            &[],
            "say how much memory the cache may take: --kv-cache-memory",
        ),
    ),
    flag(
        "calculate-kv-scales",
        Switch,
        Only(&["false"], "the cache is not quantised: leave it out"),
    ),
    // Images
    flag(
        "mm-processor-kwargs",
        Value,
        Only(
            &["{}"],
            "images are prepared as the checkpoint says: leave it out",
        ),
    ),
    flag(
        "mm-processor-cache-gb",
        Value,
        Only(&[], "--encoder-cache-memory is for what was made of images"),
    ),
    flag(
        "disable-mm-preprocessor-cache",
        Switch,
        Only(
            &["false"],
            "a small --encoder-cache-memory keeps less of what was made of images",
        ),
    ),
    flag(
        "skip-mm-profiling",
        Switch,
        Needless("what images take is known beforehand"),
    ),
    flag(
        "limit-mm-per-prompt.image",
        Value,
        Only(&[], "write --limit-mm-per-prompt image=4"),
    ),
    // Adapters
    flag("enable-lora", Switch, Only(&["false"], ADAPTERS)),
    flag("lora-modules", Values, Only(&[], ADAPTERS)),
    flag("max-loras", Value, Only(&[], ADAPTERS)),
    flag("max-lora-rank", Value, Only(&[], ADAPTERS)),
    // Scheduler
    flag(
        "enable-chunked-prefill",
        Switch,
        Only(
            &["true"],
            "long prompts always take several steps, of --max-num-batched-tokens each: leave it out",
        ),
    ),
    flag(
        "scheduling-policy",
        Value,
        Only(
            &["priority", "fcfs"],
            "a request's priority counts, and within one who came first: leave it out",
        ),
    ),
    flag(
        "async-scheduling",
        Switch,
        Needless("on a GPU steps are planned ahead"),
    ),
    flag(
        "num-scheduler-steps",
        Value,
        Needless("on a GPU steps are planned ahead"),
    ),
    flag(
        "stream-interval",
        Value,
        Only(&["1"], "tokens are sent as they come: leave it out"),
    ),
    // How vLLM compiles and computes
    flag(
        "compilation-config",
        Value,
        Needless("kernels are compiled for the GPU by themselves"),
    ),
    flag(
        "max-seq-len-to-capture",
        Value,
        Needless("steps are recorded for any length"),
    ),
    flag(
        "attention-backend",
        Value,
        Needless("there is one attention for each device"),
    ),
    flag(
        "kv-transfer-config",
        Value,
        Only(&[], "a server keeps its cache to itself: leave it out"),
    ),
    flag(
        "speculative-config",
        Value,
        Only(&[], "tokens are drawn one after the other: leave it out"),
    ),
];

const fn flag(name: &'static str, form: Form, rule: Rule) -> VllmFlag {
    VllmFlag { name, form, rule }
}
