//! What an answer that is kept to a grammar costs beside the model: compiling, and each token.
//!
//!     MEDGEMMA_TOKENIZER_DIR=DIR cargo bench --bench grammar    # the real tokenizer: 262,144 tokens
//!     cargo bench --bench grammar                               # the test files' tiny one
//!
//! Two ways through each grammar: a document as a model would write it, and one sampled evenly among
//! all that is allowed, which leads where no model goes.

#[expect(dead_code, reason = "what counts is every token, not a median of runs")]
mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::{Mode, report, seconds};
use medgemma::core::{Constraint, ConstraintState, TokenId, TokenMask, Urgency};
use medgemma::text::{
    AddSpecialTokens, GrammarCompiler, GrammarLimits, GrammarSource, GrammarVocabulary, Grammars,
    Tokenizer,
};
use serde_json::json;
use tokio::runtime::Runtime;

/// Tokens of a document that is sampled, at most: it need not end.
const MOST_SAMPLED: usize = 400;

fn main() {
    let mode = Mode::from_arguments();
    let dir = std::env::var_os("MEDGEMMA_TOKENIZER_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer"),
        Into::into,
    );
    let file = dir.join("tokenizer.json");
    let tokenizer = Arc::new(Tokenizer::from_file(&file).expect("a tokenizer"));
    let vocab_size = tokenizer.vocab_size();
    let stop = ["<eos>", "<end_of_turn>"];
    let stop: Vec<TokenId> = stop
        .iter()
        .map(|text| tokenizer.token_id(text).expect("Gemma's token"))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let vocabulary = GrammarVocabulary::new(&tokenizer, vocab_size, stop.clone());
    let mut started = None;
    let starting = seconds(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_medgemma"));
        let limits = GrammarLimits {
            max_processes: 4,
            num_turns: 1,
        };
        started = Some(Grammars::in_processes(program, vocabulary.clone(), limits));
    });
    let processes = started.expect("it was run").expect("processes can be had");
    report("to be ready for grammars", starting * 1e3, "ms");
    let here = Grammars::here(GrammarCompiler::new(vocabulary));

    println!("a vocabulary of {vocab_size} tokens");
    for (name, source, document) in cases() {
        let written = tokenizer.encode_raw(&document, AddSpecialTokens::No);
        let written = written.expect("it can be encoded");
        for (place, grammars) in [("here", &here), ("in a process", &processes)] {
            let name = format!("{name}, {place}");
            let compile = || runtime.block_on(grammars.compile(source.clone(), None));
            let compiling = seconds(|| drop(compile().expect("a grammar")));
            let constraint = compile().expect("a grammar");
            report(&format!("{name}: compile"), compiling * 1e3, "ms");

            let mut costs = Costs::new(&runtime);
            for _ in 0..mode.pick(20, 1) {
                costs.follow(&*constraint, &written);
            }
            costs.report(&format!("{name}: written"));

            let mut costs = Costs::new(&runtime);
            for seed in 0..mode.pick(20, 1) {
                costs.wander(&*constraint, &stop, vocab_size, seed);
            }
            costs.report(&format!("{name}: sampled"));
        }
    }
}

/// A grammar, and a document that keeps to it.
fn cases() -> [(&'static str, GrammarSource, String); 3] {
    let schema = json!({
        "type": "object",
        "properties": {
            "findings": {
                "type": "array",
                "maxItems": 8,
                "items": {
                    "type": "object",
                    "properties": {
                        "site": {"enum": ["heart", "left lung", "right lung", "pleura"]},
                        "description": {"type": "string", "maxLength": 400},
                        "size_mm": {"type": ["number", "null"], "minimum": 0, "maximum": 500},
                    },
                    "required": ["site", "description", "size_mm"],
                    "additionalProperties": false,
                },
            },
            "impression": {"type": "string", "maxLength": 400},
        },
        "required": ["findings", "impression"],
        "additionalProperties": false,
    });
    let finding = |site: &str| {
        json!({
            "site": site,
            "description": "A round opacity in the lower zone with a sharp margin, not seen in \
                the study of last year; no cavity and no calcification.",
            "size_mm": 14.5,
        })
    };
    let document = json!({
        "findings": [finding("left lung"), finding("right lung"), finding("pleura")],
        "impression": "New nodules on both sides. CT is recommended.",
    });
    let document = format!("{document:#}");
    [
        (
            "schema",
            GrammarSource::JsonSchema(schema.to_string()),
            document.clone(),
        ),
        ("any object", GrammarSource::JsonObject, document),
        (
            "regex",
            GrammarSource::Regex(r"Final Answer: \([A-E]\)( because [a-z ,]{1,200}\.)?".to_owned()),
            "Final Answer: (C) because the effusion is on the left, and the heart is of normal \
             size."
                .to_owned(),
        ),
    ]
}

/// Seconds of each token's mask and step.
struct Costs<'r> {
    runtime: &'r Runtime,
    seconds: Vec<f64>,
}

impl<'r> Costs<'r> {
    fn new(runtime: &'r Runtime) -> Self {
        Self {
            runtime,
            seconds: Vec::new(),
        }
    }

    /// The next mask, timed.
    fn mask(&mut self, state: &mut dyn ConstraintState, sampled: &[TokenId]) -> TokenMask {
        let mut mask = None;
        self.seconds.push(seconds(|| {
            mask = Some(
                self.runtime
                    .block_on(state.next_mask(sampled, usize::MAX, Urgency::Now)),
            );
        }));
        let mask = mask.expect("it was run").expect("it goes on");
        mask.expect("not all may come")
    }

    fn follow(&mut self, constraint: &dyn Constraint, tokens: &[TokenId]) {
        let mut state = constraint.start().expect("it begins");
        for (at, token) in tokens.iter().enumerate() {
            let mask = self.mask(&mut *state, &tokens[at.saturating_sub(1)..at]);
            assert!(mask.contains(*token), "{token:?} is not allowed");
        }
    }

    fn wander(&mut self, constraint: &dyn Constraint, stop: &[TokenId], vocab: usize, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = constraint.start().expect("it begins");
        let mut last = Vec::new();
        for _ in 0..MOST_SAMPLED {
            let mask = self.mask(&mut *state, &last);
            let allowed: Vec<TokenId> = (0..vocab as u32)
                .map(TokenId)
                .filter(|id| mask.contains(*id))
                .collect();
            let token = allowed[random.usize(..allowed.len())];
            if stop.contains(&token) {
                return;
            }
            last = vec![token];
        }
    }

    fn report(mut self, what: &str) {
        self.seconds.sort_by(f64::total_cmp);
        let last = self.seconds.len() - 1;
        let mean = self.seconds.iter().sum::<f64>() / self.seconds.len() as f64;
        report(&format!("{what}, a token, mean"), mean * 1e6, "µs");
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("most", 1.0)] {
            let cost = self.seconds[(last as f64 * share).round() as usize];
            report(&format!("{what}, a token, {name}"), cost * 1e6, "µs");
        }
    }
}
