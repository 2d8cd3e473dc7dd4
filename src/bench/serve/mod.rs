//! A client that puts a load on any server with an OpenAI-compatible API and measures what it sees.
//!
//! Owns the arrivals and the report. Counts tokens as the server reports them.

mod client;
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Report, Row};
use crate::config::{Arrivals, ServePlan};
use crate::error::{Error, Result};
use client::{Client, Measured};
use workload::Workload;

/// Puts the load on and waits for every answer.
///
/// # Errors
/// When the server cannot be reached, names no model, or answers no request at all.
pub async fn serve(plan: &ServePlan) -> Result<Report> {
    let client = Arc::new(Client::connect(plan).await?);
    let mut workload = Workload::new(plan, client.tokens_per_word(plan).await?);
    let mut gaps = fastrand::Rng::with_seed(plan.seed ^ 0x6761_7073);
    let places = Arc::new(Semaphore::new(match plan.arrivals {
        Arrivals::Concurrency(places) => places,
        Arrivals::Rate(_) => Semaphore::MAX_PERMITS,
    }));

    let began = Instant::now();
    let mut due = Duration::ZERO;
    let mut running = JoinSet::new();
    for _ in 0..plan.num_requests {
        let body = workload.next_body();
        if let Arrivals::Rate(rate) = plan.arrivals {
            due += Duration::from_secs_f64(-(1.0 - gaps.f64()).ln() / rate);
            tokio::time::sleep_until((began + due).into()).await;
        }
        let place = Arc::clone(&places).acquire_owned().await;
        let client = Arc::clone(&client);
        running.spawn(async move {
            let measured = client.ask(&body).await;
            drop(place);
            measured
        });
    }
    let mut answers = Vec::new();
    let mut failures = Vec::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ok(measured)) => answers.push(measured),
            Ok(Err(error)) => failures.push(error),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if let (true, Some(failure)) = (answers.is_empty(), failures.first()) {
        return Err(Error::Config(format!(
            "none of the {} requests was answered; the first said: {failure}",
            failures.len()
        )));
    }
    Ok(report(plan, client.model(), &answers, &failures, seconds))
}

fn report(
    plan: &ServePlan,
    model: &str,
    answers: &[Measured],
    failures: &[String],
    seconds: f64,
) -> Report {
    let sum = |of: fn(&Measured) -> usize| answers.iter().map(of).sum::<usize>() as f64;
    let (input, output) = (sum(|a| a.prompt_tokens), sum(|a| a.output_tokens));
    let milliseconds = |of: &dyn Fn(&Measured) -> Option<Duration>| {
        (answers.iter().filter_map(of))
            .map(|duration| duration.as_secs_f64() * 1e3)
            .collect::<Vec<f64>>()
    };
    let mut rows = vec![
        Row::one("answered", answers.len() as f64, "requests"),
        Row::one("failed", failures.len() as f64, "requests"),
        Row::one("took", seconds, "s"),
        Row::one("requests", answers.len() as f64 / seconds, "/s"),
        Row::one("prompt tokens", input / seconds, "tok/s"),
        Row::one("new tokens", output / seconds, "tok/s"),
    ];
    let gaps = (answers.iter().flat_map(|answer| &answer.gaps))
        .map(|gap| gap.as_secs_f64() * 1e3)
        .collect();
    rows.extend(
        [
            Row::many(
                "time to first token",
                milliseconds(&|a| Some(a.first_token)),
                "ms",
            ),
            Row::many(
                "time per output token",
                milliseconds(&Measured::per_token),
                "ms",
            ),
            Row::many("between pieces of text", gaps, "ms"),
            Row::many("whole answer", milliseconds(&|a| Some(a.total)), "ms"),
        ]
        .into_iter()
        .flatten(),
    );
    let load = match plan.arrivals {
        Arrivals::Concurrency(places) => format!("{places} at a time"),
        Arrivals::Rate(rate) => format!("{rate} a second"),
    };
    Report {
        what: format!(
            "{model} at {}: {} requests, {load}, {} tokens in, {} out, {} images",
            plan.base_url, plan.num_requests, plan.input_len, plan.output_len, plan.num_images
        ),
        rows,
    }
}
