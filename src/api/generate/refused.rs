//! Fields that no generating endpoint of OpenAI's supports.

use crate::api::http::refused_fields::{RefusedField, field};

/// The fields with their neutral values.
pub(crate) const GENERATION: &[RefusedField] = &[
    // OpenAI's.
    field("prompt_cache_options", &["{}"], ""),
    field("moderation", &[], ""),
    // vLLM's: sampling.
    field("use_beam_search", &["false"], ""),
    field("length_penalty", &["1"], ""),
    field("early_stopping", &["false"], ""),
    field("best_of", &["1"], "Use 'n' and choose."),
    field("spaces_between_special_tokens", &["true"], ""),
    field("logits_processors", &["[]"], ""),
    field("repetition_detection", &[], ""),
    field("watermarking", &["false"], ""),
    // vLLM's: constraints on the output.
    field(
        "guided_whitespace_pattern",
        &[],
        "Use 'structured_outputs'.",
    ),
    field("structural_tag", &[], ""),
    // vLLM's: the rest.
    field("request_id", &[], "Use the header X-Request-Id."),
    field("session_id", &[], ""),
    field("return_token_offsets", &["false"], ""),
    field("return_prompt_text", &["false"], ""),
    field("return_mm_kwargs", &["true"], ""),
    field("routed_experts_prompt_start", &["0"], ""),
    field("stream_interval", &["1"], ""),
    field("prompt_embeds", &[], ""),
    field("kv_transfer_params", &["{}"], ""),
    field("ec_transfer_params", &["{}"], ""),
    field("vllm_xargs", &["{}"], ""),
    // SGLang's and llama.cpp's that change what is generated.
    field("min_new_tokens", &["0"], "Use 'min_tokens'."),
    field("max_new_tokens", &[], "Use 'max_completion_tokens'."),
    field("n_predict", &["-1"], "Use 'max_completion_tokens'."),
    field("regex", &[], ""),
    field("ebnf", &[], ""),
    field("grammar", &[r#""""#], ""),
    field("json_schema", &[], ""),
    field("stop_regex", &[], ""),
    field("no_stop_trim", &["false"], ""),
    field("custom_logit_processor", &[], ""),
    field("custom_params", &["{}"], ""),
    field("lora_path", &[], ""),
    field("separate_reasoning", &["true"], ""),
    field("return_hidden_states", &["false"], ""),
    field("repeat_penalty", &["1"], ""),
    field("typical_p", &["1"], ""),
    field("top_n_sigma", &["-1"], ""),
    field("xtc_probability", &["0"], ""),
    field("dynatemp_range", &["0"], ""),
    field("mirostat", &["0"], ""),
    field("dry_multiplier", &["0"], ""),
    field("samplers", &[], ""),
    field("n_probs", &["0"], "Use 'logprobs'."),
    field("lora", &["[]"], ""),
];
