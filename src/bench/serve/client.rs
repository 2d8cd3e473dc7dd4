//! One connection pool to the measured server, and one request's clock.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::workload;
use crate::config::{Endpoint, ServePlan};
use crate::error::{Error, Result};
use crate::http_client;

/// Asks the server.
pub(super) struct Client {
    http: reqwest::Client,
    /// Ends with `/v1`.
    base: String,
    model: String,
    key: Option<String>,
    endpoint: Endpoint,
}

/// What one answer took.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) prompt_tokens: usize,
    pub(super) output_tokens: usize,
    /// From the request to the first piece of text.
    pub(super) first_token: Duration,
    /// From one piece of text to the next; a piece is most often a token.
    pub(super) gaps: Vec<Duration>,
    /// From the request to the end of the stream.
    pub(super) total: Duration,
}

impl Measured {
    /// Time per output token after the first; `None` for answers of one.
    pub(super) fn per_token(&self) -> Option<Duration> {
        let rest = u32::try_from(self.output_tokens.checked_sub(1)?).ok()?;
        let decoding: Duration = self.gaps.iter().sum();
        (rest > 0).then(|| decoding / rest)
    }
}

impl Client {
    /// Finds out what the server calls its model.
    pub(super) async fn connect(plan: &ServePlan) -> Result<Self> {
        if plan.base_url.starts_with("https://") {
            return Err(Error::Config(
                "bench serve speaks plain HTTP: measure beside the server, or behind its TLS"
                    .into(),
            ));
        }
        let base = plan.base_url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let http = http_client::without_tls()
            .timeout(plan.timeout)
            .build()
            .map_err(|error| Error::Config(format!("no HTTP client: {error}")))?;
        let mut client = Self {
            http,
            base: format!("{base}/v1"),
            model: String::new(),
            key: plan.api_key.as_ref().map(|key| key.0.clone()),
            endpoint: plan.endpoint,
        };
        client.model = match &plan.model {
            Some(model) => model.clone(),
            None => client.first_model().await?,
        };
        Ok(client)
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    async fn first_model(&self) -> Result<String> {
        let url = format!("{}/models", self.base);
        let failed = |what: String| Error::Config(format!("{url}: {what}; name it with --model"));
        let response = self
            .with_key(self.http.get(&url))
            .send()
            .await
            .map_err(|error| failed(reason(&error)))?;
        let models: Value = response
            .json()
            .await
            .map_err(|error| failed(reason(&error)))?;
        models["data"][0]["id"]
            .as_str()
            .map(ToOwned::to_owned)
            .ok_or_else(|| failed("names no model".into()))
    }

    /// Tokens that a word of the workload becomes, on this server.
    pub(super) async fn tokens_per_word(&self, plan: &ServePlan) -> Result<f64> {
        const FEW: usize = 16;
        const MANY: usize = 272;
        let mut tokens = [0.0; 2];
        for (num_words, tokens) in [FEW, MANY].into_iter().zip(&mut tokens) {
            let body = workload::probe(plan, num_words);
            let measured = self.ask(&body).await.map_err(Error::Config)?;
            *tokens = measured.prompt_tokens as f64;
        }
        let per_word = (tokens[1] - tokens[0]) / (MANY - FEW) as f64;
        if per_word > 0.0 {
            Ok(per_word)
        } else {
            Err(Error::Config(
                "the server reports no usage in streams (stream_options.include_usage), so tokens \
                 cannot be counted"
                    .into(),
            ))
        }
    }

    /// Sends `body` and reads the stream to its end. The error is the server's own words.
    pub(super) async fn ask(&self, body: &Value) -> std::result::Result<Measured, String> {
        let route = match self.endpoint {
            Endpoint::Chat => "chat/completions",
            Endpoint::Completions => "completions",
        };
        let mut body = body.clone();
        body["model"] = json!(self.model);
        let began = Instant::now();
        let request = self.http.post(format!("{}/{route}", self.base)).json(&body);
        let response = self
            .with_key(request)
            .send()
            .await
            .map_err(|error| reason(&error))?;
        let status = response.status();
        if !status.is_success() {
            let text = response.text().await.unwrap_or_default();
            return Err(format!("{status}: {text}"));
        }
        let mut answer = Answer::new(began);
        let mut pieces = response.bytes_stream();
        let mut unread = Vec::new();
        while let Some(piece) = pieces.next().await {
            unread.extend_from_slice(&piece.map_err(|error| reason(&error))?);
            while let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                answer.take_line(&line)?;
            }
        }
        answer.end()
    }

    fn with_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// With what lies under it: reqwest's own words name only the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A stream while it is read.
struct Answer {
    began: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    gaps: Vec<Duration>,
    usage: Option<(usize, usize)>,
    done: bool,
}

impl Answer {
    fn new(began: Instant) -> Self {
        Self {
            began,
            first: None,
            last: None,
            gaps: Vec::new(),
            usage: None,
            done: false,
        }
    }

    /// Takes one line of server-sent events.
    fn take_line(&mut self, line: &[u8]) -> std::result::Result<(), String> {
        let now = Instant::now();
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(());
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_slice(data)
            .map_err(|error| format!("the stream is not JSON: {error}"))?;
        if let Some(error) = chunk.get("error") {
            return Err(error.to_string());
        }
        if let (Some(prompt), Some(output)) = (
            chunk["usage"]["prompt_tokens"].as_u64(),
            chunk["usage"]["completion_tokens"].as_u64(),
        ) {
            self.usage = Some((prompt as usize, output as usize));
        }
        let choice = &chunk["choices"][0];
        let has_text = [
            &choice["delta"]["content"],
            &choice["delta"]["reasoning_content"],
            &choice["text"],
        ]
        .iter()
        .any(|text| text.as_str().is_some_and(|text| !text.is_empty()));
        if has_text {
            match self.last {
                Some(last) => self.gaps.push(now - last),
                None => self.first = Some(now),
            }
            self.last = Some(now);
        }
        Ok(())
    }

    fn end(self) -> std::result::Result<Measured, String> {
        if !self.done {
            return Err("the stream ended without [DONE]".into());
        }
        let total = self.began.elapsed();
        let (prompt_tokens, output_tokens) = self.usage.unwrap_or((0, self.gaps.len() + 1));
        Ok(Measured {
            prompt_tokens,
            output_tokens,
            // An answer can be without text: of stop tokens, or of halves of characters.
            first_token: self.first.map_or(total, |first| first - self.began),
            gaps: self.gaps,
            total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> std::result::Result<Measured, String> {
        let mut answer = Answer::new(Instant::now());
        for line in lines {
            answer.take_line(line.as_bytes())?;
        }
        answer.end()
    }

    #[test]
    fn text_is_timed_and_usage_counts() {
        let measured = read(&[
            r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            ": keep-alive",
            r#"data: {"choices":[{"delta":{"content":"a"}}]}"#,
            r#"data: {"choices":[{"delta":{"content":"b"}}],"usage":null}"#,
            r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}"#,
            "data: [DONE]",
        ])
        .expect("a whole stream");
        assert_eq!((measured.prompt_tokens, measured.output_tokens), (7, 5));
        assert_eq!(measured.gaps.len(), 1);
        assert_eq!(measured.per_token(), Some(measured.gaps[0] / 4));
    }

    #[test]
    fn what_is_cut_or_failed_is_no_answer() {
        let cut = read(&[r#"data: {"choices":[{"text":"a"}]}"#]);
        assert!(cut.expect_err("it was cut").contains("[DONE]"));
        let failed = read(&[r#"data: {"error":{"message":"no"}}"#]);
        assert!(failed.expect_err("it failed").contains("no"));
        assert!(read(&["data: {"]).is_err());
    }
}
