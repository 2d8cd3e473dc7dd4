//! Token usage.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Serialize;

/// Token usage of a request. An image counts as the tokens that it takes in the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptTokensDetails,
    pub(crate) completion_tokens_details: CompletionTokensDetails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct PromptTokensDetails {
    pub(crate) cached_tokens: usize,
    /// This server's: number of images that the model saw, crops included; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CompletionTokensDetails {
    pub(crate) reasoning_tokens: usize,
}

impl Usage {
    /// Creates the usage from the tokens of the prompts, the cached ones among these, the tokens of
    /// the answers, and the reasoning tokens among these.
    pub(crate) fn new(
        prompt_tokens: usize,
        cached_tokens: usize,
        completion_tokens: usize,
        reasoning_tokens: usize,
    ) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens,
                images: None,
            },
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens },
        }
    }

    /// Adds the number of images in the prompts.
    pub(crate) fn with_images(mut self, images: usize) -> Self {
        self.prompt_tokens_details.images = NonZeroUsize::new(images);
        self
    }
}
