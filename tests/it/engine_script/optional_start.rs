//! Answers whose constraint has an optional start: the model chooses it among all tokens.

use std::future::ready;
use std::sync::Arc;

use medgemma::core::{
    Constraint, ConstraintState, GenerateRequest, NextMask, TokenId, TokenMask, Urgency,
};
use medgemma::engine::{DeviceCommand, EngineConfig, SampleInput};
use medgemma::error::Result;

use super::stage::{STEPPINGS, VOCAB, WORD, ask, config, next, rest, sampled, stage};

const OPEN: TokenId = TokenId(20);
const ANSWER: TokenId = TokenId(10);

/// An answer begins with `OPEN` or `ANSWER`, and goes on with `ANSWER`.
#[derive(Clone, Debug)]
struct Opening {
    has_begun: bool,
}

impl Constraint for Opening {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        Ok(Box::new(self.clone()))
    }

    fn optional_start(&self) -> Option<TokenId> {
        Some(OPEN)
    }
}

impl ConstraintState for Opening {
    fn next_mask<'a>(&'a mut self, sampled: &'a [TokenId], _: usize, _: Urgency) -> NextMask<'a> {
        self.has_begun |= !sampled.is_empty();
        let mut mask = TokenMask::none(VOCAB);
        mask.allow(ANSWER);
        if !self.has_begun {
            mask.allow(OPEN);
        }
        Box::pin(ready(Ok(Some(mask))))
    }
}

fn allowed(sample: &SampleInput) -> Vec<TokenId> {
    let mask = sample.mask.as_ref().expect("it is bound");
    let tokens = (0..VOCAB as u32).map(TokenId);
    tokens.filter(|token| mask.contains(*token)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_optional_start_is_chosen_among_all_tokens() {
    for stepping in STEPPINGS {
        for (drawn, begins) in [(OPEN, OPEN), (WORD, ANSWER), (ANSWER, ANSWER)] {
            let mut stage = stage(EngineConfig {
                stepping,
                ..config()
            });
            let mut stream = stage.submit(GenerateRequest {
                constraint: Some(Arc::new(Opening { has_begun: false })),
                ..ask(8, 3)
            });
            let order = stage.begun().await;
            assert_eq!(order.input.positions.len(), 8);
            let choice = stage.sampled_tokens().await;
            assert_eq!(choice[0].mask, None, "every token may be drawn");
            assert!(choice[0].position > 1000, "no token's random number");
            stage.asked().await;
            stage.report(vec![sampled(drawn)]);

            // What was drawn is no token of the answer: the last position is computed again.
            let order = stage.begun().await;
            assert_eq!(order.input.positions, [7]);
            let first = stage.sampled_tokens().await;
            assert_eq!(first[0].position, 8);
            assert_eq!(allowed(&first[0]), [begins], "{drawn:?} was drawn");
            // The next step may begin before this one's token is known.
            while !matches!(stage.order().await, DeviceCommand::Collect) {}
            stage.report(vec![sampled(begins)]);
            let token = next(&mut stream).await.expect("a token").token;
            assert_eq!(token, begins);

            // From then on the constraint alone decides.
            let samples = loop {
                if let DeviceCommand::Sample(samples) = stage.order().await {
                    break samples;
                }
            };
            assert_eq!(allowed(&samples[0]), [ANSWER]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_with_and_without_an_optional_start_share_steps() {
    for stepping in STEPPINGS {
        let mut stage = stage(EngineConfig {
            stepping,
            ..config()
        });
        let bound = |len| GenerateRequest {
            constraint: Some(Arc::new(Opening { has_begun: false })),
            ..ask(len, 4)
        };
        let streams = [
            stage.submit(bound(8)),
            stage.submit(ask(5, 4)),
            stage.submit(bound(3)),
        ];
        stage.play_all().await;
        for (stream, expected) in streams.into_iter().zip([ANSWER, WORD, ANSWER]) {
            let events = rest(stream).await;
            let tokens: Vec<_> = events
                .into_iter()
                .map(|event| event.expect("a token").token)
                .collect();
            assert_eq!(tokens, [expected; 4]);
        }
        stage.assert_empty();
    }
}
