//! Workers that never answer: when they are ended, and how.

use std::process::Command;

use super::*;
use crate::text::Tokenizer;

const PID: i32 = 4711;

/// A worker that never answers: itself, what the server asks of the fork server, and the worker's
/// end of its socket.
fn silent() -> (Worker, UnixStream, UnixStream) {
    let tokenizer = Arc::new(Tokenizer::for_test());
    let (control, asked) = UnixStream::pair().unwrap();
    let (socket, theirs) = UnixStream::pair().unwrap();
    let child = Command::new("true").spawn().unwrap();
    let server = ForkServer {
        program: PathBuf::new(),
        vocabulary: GrammarVocabulary::new(&tokenizer, 832, vec![TokenId(1)]),
        running: Mutex::new(Some(Running { control, child })),
        turns: Arc::new(Semaphore::new(1)),
        workers: Mutex::default(),
    };
    let worker = Worker {
        server: Arc::new(server),
        link: Arc::new(Link::new(PID, socket, None)),
        next_answer: AtomicU64::new(COMPILE_JOB + 1),
    };
    (worker, asked, theirs)
}

#[test]
fn what_is_late_or_for_nobody_is_over() {
    let (worker, _asked, _theirs) = silent();
    let supervisor = worker.watch();
    let is_over = || supervisor.load().map(|load| load.is_over);
    assert_eq!(is_over(), None);
    let hour = Duration::from_secs(3600);
    let waiting = worker.order(1, None, &Order::Forget { answer: 1 }, hour);
    assert_eq!(is_over(), Some(false));
    let age = |by| locked(&worker.link.jobs).get_mut(&1).unwrap().ordered -= by;
    age(Duration::from_secs(60));
    assert_eq!(is_over(), Some(false), "somebody waits for it");
    drop(waiting);
    assert_eq!(is_over(), Some(true), "nobody waits for it");
    worker.link.num_answers.store(1, Ordering::Release);
    assert_eq!(is_over(), Some(false), "an answer goes on");
    let _waiting = worker.order(2, None, &Order::Forget { answer: 2 }, Duration::ZERO);
    assert_eq!(is_over(), Some(true), "its time is up");
}

#[test]
fn who_computes_for_nobody_is_killed_and_who_is_idle_is_let_go() {
    for is_idle in [true, false] {
        let (worker, mut asked, mut theirs) = silent();
        let waiting = (!is_idle).then(|| {
            worker.order(
                1,
                None,
                &Order::Forget { answer: 1 },
                Duration::from_secs(3600),
            )
        });
        drop(worker);
        let mut rest = Vec::new();
        asked.read_to_end(&mut rest).unwrap();
        let expected = match is_idle {
            true => Vec::new(),
            false => Request::Kill(PID).to_bytes().to_vec(),
        };
        assert_eq!(rest, expected);
        rest.clear();
        theirs
            .read_to_end(&mut rest)
            .expect("it is told that nobody is there");
        assert!(waiting.is_none_or(|waiting| waiting.blocking_recv().is_err()));
    }
}
