//! The errors of everything below the HTTP layer. They have no status codes: `api::http::error`
//! assigns them.

use std::path::PathBuf;
use std::time::Duration;

/// Result with the crate's own error.
pub type Result<T> = std::result::Result<T, Error>;

/// Domain errors. Messages carry the numbers that a reader needs to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint's file is missing, damaged or not what the architecture needs.
    #[error("{}: {message}", file.display())]
    Checkpoint {
        /// The file at fault.
        file: PathBuf,
        /// What is wrong in it and, where there is one, the tensor or field.
        message: String,
    },
    /// A setting that cannot work, from a flag, the environment or a file.
    #[error("{0}")]
    Config(String),
    /// A model, a directory or a checkpoint's file does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The requested device cannot be used.
    #[error("{0}")]
    Device(String),
    /// A model could not be loaded from the hub or its cache.
    #[error("{message}")]
    Hub {
        /// The kind of problem.
        problem: HubProblem,
        /// What went wrong, and what to do.
        message: String,
    },
    /// The machine has less memory than the settings need.
    #[error("{0}")]
    OutOfMemory(String),
    /// The chat template rejected the messages, with its own message.
    #[error("{0}")]
    Template(String),
    /// An image was rejected; the text is fixed, never a decoder's own.
    #[error("{0}")]
    Image(#[from] ImageError),
    /// The prompt does not fit.
    #[error(
        "This model's maximum context length is {max_model_len} tokens. However, your prompt \
         contains {prompt_len} input tokens. Please shorten it (an image takes up to 258 tokens)."
    )]
    PromptTooLong {
        /// Longest sequence the server was started for.
        max_model_len: usize,
        /// Tokens of the prompt, images included.
        prompt_len: usize,
    },
    /// One image needs more tokens than a step may compute.
    #[error(
        "An image of this prompt needs {needed} tokens in one step, but this server computes at \
         most {budget} a step (--max-num-batched-tokens)."
    )]
    ImageSpanTooLong {
        /// Tokens of the span that cannot be split.
        needed: usize,
        /// Token budget of a step.
        budget: usize,
    },
    /// The KV cache could never hold the sequence.
    #[error(
        "This request needs up to {needed} KV blocks, but the whole cache has {total} \
         (--kv-cache-memory)."
    )]
    NeverFits {
        /// Blocks at its longest.
        needed: usize,
        /// Blocks in the pool.
        total: usize,
    },
    /// Too many requests, or too long ones, are waiting.
    #[error(
        "The server is at capacity: {queued} requests are in flight. Try again in {} s.",
        retry_after.as_secs()
    )]
    QueueFull {
        /// Requests accepted and not finished.
        queued: usize,
        /// Estimated time until the waiting requests are served, in whole seconds.
        retry_after: Duration,
    },
    /// A tenant has reached its share of the queue.
    #[error(
        "This API key has {held} requests in flight, its current share of the queue (see \
         --max-waiting-per-key). Retry in {} s.",
        retry_after.as_secs()
    )]
    ShareFull {
        /// Requests of the tenant, accepted and not finished.
        held: usize,
        /// As in `QueueFull`.
        retry_after: Duration,
    },
    /// One request asks for more answers than the queue could ever hold.
    #[error(
        "This request asks for {sequences} answers to prompts of {tokens} tokens in all, but this \
         server takes at most {max_sequences} answers and {max_tokens} tokens at a time \
         (--max-queued-requests)."
    )]
    NeverQueued {
        /// Answers asked for, over all prompts.
        sequences: usize,
        /// The most that can be in flight.
        max_sequences: usize,
        /// Tokens of the prompts.
        tokens: usize,
        /// The most that can wait.
        max_tokens: usize,
    },
    /// The request timed out, waiting or running.
    #[error("The request timed out after {after_ms} ms (timeout).")]
    DeadlineExceeded {
        /// Since it was accepted.
        after_ms: u64,
    },
    /// No new requests are taken.
    #[error("The server is shutting down and takes no new requests.")]
    Draining,
    /// The server stopped before the answer was finished.
    #[error(
        "The server is shutting down and this answer was not finished within {} s \
         (--shutdown-timeout).",
        after.as_secs()
    )]
    ShutdownTimeout {
        /// Since the shutdown began.
        after: Duration,
    },
    /// The engine's thread is gone; the process must be restarted.
    #[error("The engine has stopped after a fault and must be restarted.")]
    EngineDead,
    /// The answer's constraint cannot be satisfied any longer.
    #[error("The answer cannot be continued after {num_tokens} tokens: {reason}")]
    Constraint {
        /// Tokens of the answer so far.
        num_tokens: usize,
        /// Why.
        reason: String,
    },
    /// A step failed for this request.
    #[error("The model could not compute this request.")]
    StepFailed,
    /// The logits of this request are NaN or infinite.
    #[error(
        "The model's numbers for this request are not finite (NaN or infinity), so there is no \
         answer to it. Other requests are not affected. If it happens again, the checkpoint or the \
         device is damaged."
    )]
    NotFinite,
    /// A tensor operation failed; a bug or a device fault.
    #[error("backend: {0}")]
    Backend(String),
    /// A run of text that the tokenizer has to take as one word is too long for that.
    #[error(
        "The prompt contains {bytes} bytes of text without a break, such as a space or a comma; at \
         most {max_bytes} are accepted. Shorten it, or insert spaces."
    )]
    UnbrokenText {
        /// Length of the run.
        bytes: usize,
        /// The most that is taken.
        max_bytes: usize,
    },
    /// The tokenizer could not be read or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

/// Why a model could not be loaded from the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubProblem {
    /// It is gated or private, and the token, if any, does not give access.
    Access,
    /// There is no such repository, revision or file, on the hub or, offline, in the cache.
    NotFound,
    /// The hub cannot be reached, or fails.
    Network,
    /// The cache cannot be read or written, or is full.
    Disk,
    /// The downloaded data does not match its checksum or size.
    Damaged,
}

/// Why an image was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not a supported format.
    #[error(
        "The image is in a format that is not supported. Send PNG, JPEG, WebP, GIF, BMP, TIFF, \
         JPEG 2000 or DICOM."
    )]
    UnknownFormat,
    /// A format that is known, and not supported.
    #[error(
        "The image's format is {name}, which is not supported. Convert it, and send PNG, JPEG, WebP, \
         GIF, BMP, TIFF, JPEG 2000 or DICOM."
    )]
    UnreadFormat {
        /// The format's usual name.
        name: &'static str,
    },
    /// A PDF.
    #[error(
        "The file is a PDF, which is not read by this server. Send each of its pages as an image (PNG or \
         JPEG), or its text as text."
    )]
    Pdf,
    /// A text.
    #[error("The file is text, not an image. Send it as text of the message.")]
    PlainText,
    /// A DICOM file that cannot be shown.
    #[error("{0}")]
    Dicom(#[from] DicomError),
    /// An unsupported variant of a supported format.
    #[error(
        "The image uses a variant of its format that is not supported. Send an 8-bit PNG or a baseline JPEG."
    )]
    UnsupportedVariant,
    /// The file is damaged or ends early.
    #[error("The image could not be decoded: the file is damaged or incomplete.")]
    Undecodable,
    /// More pixels than are accepted.
    #[error(
        "The image is {width}×{height} pixels; at most {max_pixels} pixels are accepted \
         (--max-image-pixels)."
    )]
    TooManyPixels {
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// A side longer than is accepted.
    #[error(
        "The image is {width}×{height} pixels; a side of at most {max_side} pixels is accepted. Crop \
         it or make it smaller."
    )]
    SideTooLong {
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
        /// The limit.
        max_side: u32,
    },
    /// The aspect ratio is too extreme.
    #[error(
        "The image is {width}×{height} pixels; one side may be at most {max_ratio} times as long \
         as the other. Crop it to the region of interest."
    )]
    TooThin {
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
        /// The limit.
        max_ratio: u32,
    },
    /// A side is zero.
    #[error("The image is empty: {width}×{height} pixels.")]
    Empty {
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
    },
    /// The client disconnected, so decoding was cancelled.
    #[error("Image decoding was cancelled: the client disconnected.")]
    Abandoned,
    /// More bytes than are accepted.
    #[error("The image has {bytes} bytes; at most {max_bytes} are accepted (--max-file-bytes).")]
    TooManyBytes {
        /// Encoded size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// Not a valid data URI.
    #[error(
        "The image's data URI is malformed. Send data:image/png;base64,… (or jpeg, webp, gif, bmp, tiff, jp2; data:application/dicom;base64,… for DICOM)."
    )]
    BadDataUri,
    /// A URL of another scheme, or a path.
    #[error("The image's URL is not a data URI. Send the image itself: data:image/png;base64,…")]
    NotADataUri,
    /// Remote images are not fetched.
    #[error(
        "Remote images are not fetched by this server. Send the image itself as a data URI: data:image/png;base64,…"
    )]
    Remote,
}

/// Why a DICOM file was refused. No value of the file but numbers of pixels ever gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DicomError {
    /// The file contradicts itself or ends early.
    #[error("The DICOM file is damaged: {what}.")]
    Damaged {
        /// What is wrong, as a clause: `an element is longer than the file`.
        what: &'static str,
    },
    /// Something that cannot be shown rightly.
    #[error(
        "The DICOM file has {what}, which is not supported. Convert it to uncompressed grey or RGB \
         samples, for example with dcmconv, gdcmconv --raw or your PACS, and send it again."
    )]
    Unsupported {
        /// Its name, as a noun.
        what: &'static str,
    },
    /// An attribute that is needed.
    #[error("The DICOM file has no {name}, without which its image cannot be shown.")]
    Missing {
        /// The attribute's name in DICOM.
        name: &'static str,
    },
    /// CT whose samples cannot be converted to Hounsfield units.
    #[error(
        "The CT image has no {missing}, so its samples cannot be converted to Hounsfield units. Some \
         software takes them as they are; this server does not guess. Send the image as the scanner \
         made it, or choose the window \"header\"."
    )]
    NotHounsfield {
        /// The attribute's name in DICOM.
        missing: &'static str,
    },
    /// A frame that the file does not have.
    #[error("The DICOM file has {num_frames} frames, numbered from 1; there is no frame {number}.")]
    NoSuchFrame {
        /// The number that was asked for.
        number: u32,
        /// The frames that there are.
        num_frames: usize,
    },
    /// A report, a structure set or the like.
    #[error("The DICOM file holds no image. Send an object with pixel data.")]
    NoImage,
    /// More of something than is accepted.
    #[error("The DICOM file has more {what} than are accepted ({max}).")]
    TooMany {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}
