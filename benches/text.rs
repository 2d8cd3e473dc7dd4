//! A long chat on its way in and tokens on their way out.
//!
//!     MEDGEMMA_TOKENIZER_DIR=DIR cargo bench --bench text    # the real tokenizer
//!     cargo bench --bench text                               # the test files' tiny one

mod harness;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use harness::{Mode, median, report, seconds};
use medgemma::text::{
    ChatTemplate, Content, Detokenizer, Message, Role, TextRule, Tokenizer, encode_prompt,
};

const TURN: &str = "The patient is a man of 64 years with a cough, fever and shortness of breath \
    for three days. Blood pressure was 132/84 mmHg, heart rate 78 beats per minute. There is a \
    new opacity in the right lower zone; the heart is of normal size. What is the next step?";

fn main() {
    let mode = Mode::from_arguments();
    let dir = std::env::var_os("MEDGEMMA_TOKENIZER_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer"),
        Into::into,
    );
    let loading = seconds(|| {
        black_box(Tokenizer::from_file(&dir.join("tokenizer.json")).expect("a tokenizer"));
    });
    let tokenizer =
        Arc::new(Tokenizer::from_file(&dir.join("tokenizer.json")).expect("a tokenizer"));
    let program = Path::new(env!("CARGO_BIN_EXE_medgemma"));
    let template = ChatTemplate::from_dir(&dir, &tokenizer, program)
        .expect("a folder that can be read")
        .expect("a template");
    let messages: Vec<Message> = (0..mode.pick(121, 3))
        .map(|turn| Message {
            role: if turn % 2 == 0 {
                Role::User
            } else {
                Role::Assistant
            },
            content: Content::Text(format!("{turn}. {TURN}")),
        })
        .collect();

    let encode = || {
        let rendered = template.render(&messages).expect("turns alternate");
        encode_prompt(&tokenizer, &rendered, None).expect("it can be encoded")
    };
    let tokens = encode().ids;
    let runs = mode.pick(21, 1);
    let encoding = median(runs, || seconds(|| drop(black_box(encode()))));
    let stop = ["\n\nUser:".to_owned(), "Final Answer:".to_owned()];
    let decoding = median(runs, || {
        let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), &stop, TextRule::default());
        seconds(|| {
            for token in &tokens {
                black_box(detokenizer.push(*token));
            }
        })
    });
    report("load the tokenizer", loading * 1e3, "ms");
    let what = format!("template and tokenise a chat of {} tokens", tokens.len());
    report(&what, encoding * 1e3, "ms");
    let per_token = decoding / tokens.len() as f64 * 1e9;
    report(
        "detokenise with two stop strings, per token",
        per_token,
        "ns",
    );
}
