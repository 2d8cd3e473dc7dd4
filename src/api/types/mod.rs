//! The types of the API: requests and responses, field by field.
//!
//! Defines names, types and formats. Knows nothing of ranges or of what a model supports (see
//! `convert`), nor of how known but unsupported fields are refused (see `refused_fields`).

mod chat_request;
mod chat_response;
mod completion_request;
mod completion_response;
mod label_fields;
mod logprobs;
mod message;
mod messages_request;
mod messages_response;
mod model_list;
mod object;
mod output_format;
mod presence;
mod responses_event;
mod responses_request;
mod responses_response;
mod sampling_fields;
mod scheduling_fields;
mod seed;
mod server_state;
mod text_or;
mod tokenize;
mod tools;
mod usage;

pub(super) use chat_request::{ChatRequest, ChatTemplateKwargs};
pub(super) use chat_response::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, Delta, StopReason,
};
pub(super) use completion_request::{CompletionRequest, Prompt};
pub(super) use completion_response::{Completion, CompletionChoice};
pub(super) use label_fields::LabelFields;
pub(super) use logprobs::{
    ChatLogprobs, CompletionLogprobs, PromptLogprob, PromptLogprobs, TokenLogprob, TopLogprob,
    TopLogprobs,
};
pub(super) use message::{ChatMessage, Content, ImageUrl, Part};
pub(super) use messages_request::{
    ImageSource, InputBlock, InputMessage, InputTool, InputToolChoice, MessagesRequest,
    OutputConfig, OutputFormat, ResultBlock, Thinking,
};
pub(super) use messages_response::{
    BlockDelta, MessageEnd, MessageObject, MessageStop, MessagesEvent, MessagesOutputDetails,
    MessagesUsage, OutputBlock, TokenCount,
};
pub(super) use model_list::{ModelCard, ModelList};
pub(super) use object::JsonObject;
pub(super) use output_format::{NamedSchema, ResponseFormat, StructuredOutputs};
pub(super) use presence::Presence;
pub(super) use responses_event::{NumberedEvent, OutputPlace, ResponsesEvent};
pub(super) use responses_request::{
    FunctionChoice, FunctionTool, InputItem, InputPart, ReasoningConfig, RepeatedFields,
    ResponsesRequest, TextConfig,
};
pub(super) use responses_response::{
    IncompleteDetails, InputTokensDetails, OutputItem, OutputPart, OutputTokensDetails,
    ResponseFault, ResponseObject, ResponseStatus, ResponsesUsage,
};
pub(super) use sampling_fields::{SamplingFields, Stop, StreamFields};
pub(super) use scheduling_fields::SchedulingFields;
pub(super) use server_state::{Status, Version};
pub(super) use text_or::TextOr;
pub(super) use tokenize::{DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized};
pub(super) use tools::{
    AnswerFunction, AnswerToolCall, CalledFunction, DeltaFunction, DeltaToolCall,
    FunctionDefinition, MessageToolCall, NamedFunction, NamedToolChoice, ToolChoice,
    ToolDefinition,
};
pub(super) use usage::Usage;
