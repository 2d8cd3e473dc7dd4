//! A hub on loopback, as far as downloads go: what a revision means, what files are, where their
//! bytes are. Large ones are on a second host, as the hub has it.
//!
//! It does what it is told to get wrong, and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, header};
use futures_util::{StreamExt, stream};
use ring::digest;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What goes wrong with one request.
#[derive(Clone, Debug, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// It is refused.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// After so many bytes nothing more comes, and nothing ends.
    StallAfter(usize),
    /// Each byte is another.
    OtherBytes,
    /// All comes, whatever part was asked for.
    WholeFile,
    /// A part that begins elsewhere.
    OtherPart,
    /// The body ends in order, but this much longer than it should be.
    Longer(usize),
    /// The body ends in order after so many bytes.
    Shorter(usize),
    /// It is another file by now.
    OtherEtag,
    /// It says that the file has so many bytes.
    ClaimSize(u64),
    /// The file comes in so many pieces, with a pause after each.
    InPieces(usize),
    /// It redirects there first, within the same host.
    MovedTo(String),
    /// It redirects to itself.
    Around,
}

/// One request, as far as tests look at it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) host: Host,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The file that it is about.
    pub(crate) file: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    /// Requests with this method for this path on this host before.
    pub(crate) num_before: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Hub,
    Storage,
}

/// Who may read a repository.
#[derive(Clone, Debug, Default)]
pub(crate) enum Gate {
    #[default]
    Open,
    /// Whoever has this token; others may know that it is there.
    Gated(String),
    /// Whoever has this token; for others it is not there.
    Private(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Repo {
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) gate: Gate,
}

type Behaviour = dyn Fn(&Ask) -> Fault + Send + Sync;

struct State {
    repos: Mutex<BTreeMap<String, Arc<Repo>>>,
    behaviour: Mutex<Arc<Behaviour>>,
    asked: Mutex<Vec<Ask>>,
    storage: SocketAddr,
}

pub(crate) struct Imitation {
    state: Arc<State>,
    hub: SocketAddr,
    /// Dropped with the imitation, which ends it.
    _stop: oneshot::Sender<()>,
}

/// What the hub keeps outside of git.
pub(crate) fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name == "tokenizer.json" || name.ends_with(".bin")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn git_blob(bytes: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    hex(context.finish().as_ref())
}

pub(crate) fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) {
        sha256(bytes)
    } else {
        git_blob(bytes)
    }
}

impl Imitation {
    pub(crate) fn start() -> Self {
        let (addresses, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                let (hub, storage) = (bind().await.unwrap(), bind().await.unwrap());
                let state = Arc::new(State {
                    repos: Mutex::default(),
                    behaviour: Mutex::new(Arc::new(|_: &Ask| Fault::None)),
                    asked: Mutex::default(),
                    storage: storage.local_addr().unwrap(),
                });
                let address = hub.local_addr().unwrap();
                addresses.send((address, Arc::clone(&state))).unwrap();
                for (listener, host) in [(hub, Host::Hub), (storage, Host::Storage)] {
                    let state = Arc::clone(&state);
                    let router = Router::new().fallback(move |request: Request<Body>| {
                        let state = Arc::clone(&state);
                        async move { answer(&state, host, request) }
                    });
                    tokio::spawn(async { axum::serve(listener, router).await });
                }
                // Either way, asked or dropped, it is time.
                let _ = stopped.await;
            });
        });
        let (hub, state) = started.recv().unwrap();
        Self {
            state,
            hub,
            _stop: stop,
        }
    }

    /// Where it is: by number, while its storage is somewhere else by name.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.hub)
    }

    pub(crate) fn put(&self, id: &str, repo: Repo) {
        self.state
            .repos
            .lock()
            .unwrap()
            .insert(id.to_owned(), Arc::new(repo));
    }

    pub(crate) fn behave(&self, behaviour: impl Fn(&Ask) -> Fault + Send + Sync + 'static) {
        *self.state.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// What it was asked since this was called last.
    pub(crate) fn asked(&self) -> Vec<Ask> {
        std::mem::take(&mut self.state.asked.lock().unwrap())
    }

    /// How many requests it has had since `asked` was called last.
    pub(crate) fn num_asked(&self) -> usize {
        self.state.asked.lock().unwrap().len()
    }
}

fn answer(state: &State, host: Host, request: Request<Body>) -> Response<Body> {
    let text = |name: header::HeaderName| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| part.replace("%2F", "/"))
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let repos = state.repos.lock().unwrap().clone();
    let file = match (host, parts.as_slice()) {
        (Host::Hub, [_, _, "resolve", _, name]) => Some((*name).to_owned()),
        (Host::Storage, [sha]) => repos
            .values()
            .flat_map(|repo| &repo.files)
            .find(|(_, bytes)| sha256(bytes) == *sha)
            .map(|(name, _)| name.clone()),
        _ => None,
    };
    let mut ask = Ask {
        host,
        method: request.method().clone(),
        path: path.clone(),
        file,
        authorization: text(header::AUTHORIZATION),
        range: text(header::RANGE),
        if_range: text(header::IF_RANGE),
        num_before: 0,
    };
    {
        let mut asked = state.asked.lock().unwrap();
        let same = |own: &&Ask| own.host == host && own.method == ask.method && own.path == path;
        ask.num_before = asked.iter().filter(same).count();
        asked.push(ask.clone());
    }
    let behaviour = Arc::clone(&state.behaviour.lock().unwrap());
    let fault = behaviour(&ask);
    match &fault {
        Fault::Status(status, headers) => return refusal(*status, headers),
        Fault::MovedTo(path) => return refusal(307, &[("location", path.clone())]),
        Fault::Around => return refusal(302, &[("location", path)]),
        _ => {}
    }
    match (host, parts.as_slice()) {
        (Host::Hub, ["api", "models", owner, name, rest @ ..]) => {
            let id = format!("{owner}/{name}");
            match repos.get(&id) {
                Some(repo) => match closed(repo, &ask, true) {
                    Some(refused) => refused,
                    None => list(&id, repo, rest),
                },
                None => refusal(401, &[("x-error-code", "RepoNotFound".to_owned())]),
            }
        }
        (Host::Hub, [owner, name, "resolve", revision, file]) => {
            let Some(repo) = repos.get(&format!("{owner}/{name}")) else {
                return refusal(401, &[("x-error-code", "RepoNotFound".to_owned())]);
            };
            if let Some(refused) = closed(repo, &ask, false) {
                return refused;
            }
            let known = [repo.commit.as_str(), "main"].contains(revision);
            let Some(bytes) = repo.files.get(*file).filter(|_| known) else {
                return refusal(404, &[("x-error-code", "EntryNotFound".to_owned())]);
            };
            resolve(state, &ask, repo, file, bytes, &fault)
        }
        (Host::Storage, [sha]) => {
            let all = repos.values().flat_map(|repo| repo.files.values());
            match all.into_iter().find(|bytes| sha256(bytes) == *sha) {
                // It has names of its own for what it keeps.
                Some(bytes) => send(&ask, bytes, &format!("\"storage-{sha}\""), &fault),
                None => refusal(404, &[]),
            }
        }
        _ => refusal(404, &[]),
    }
}

fn refusal(status: u16, headers: &[(&'static str, String)]) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from("{\"error\": \"no\"}")).unwrap()
}

/// Why this one may not read it. That a gated repository is there, and what files it has, is no
/// secret.
fn closed(repo: &Repo, ask: &Ask, is_list: bool) -> Option<Response<Body>> {
    let (token, code) = match &repo.gate {
        Gate::Open => return None,
        Gate::Gated(_) if is_list => return None,
        Gate::Gated(token) => (token, "GatedRepo"),
        Gate::Private(token) => (token, "RepoNotFound"),
    };
    let expected = format!("Bearer {token}");
    let status = match &ask.authorization {
        Some(given) if *given == expected => return None,
        Some(_) if code == "GatedRepo" => 403,
        Some(_) => 404,
        None => 401,
    };
    Some(refusal(status, &[("x-error-code", code.to_owned())]))
}

fn list(id: &str, repo: &Repo, rest: &[&str]) -> Response<Body> {
    let known = |revision: &str| [repo.commit.as_str(), "main", "refs/pr/3"].contains(&revision);
    let siblings: Vec<Value> = repo
        .files
        .keys()
        .map(|name| json!({"rfilename": name}))
        .collect();
    let body = match rest {
        [] => json!({"id": id, "sha": repo.commit, "siblings": siblings}),
        ["revision", revision] if known(revision) => {
            json!({"id": id, "sha": repo.commit, "siblings": siblings})
        }
        ["tree", revision] if known(revision) => repo
            .files
            .iter()
            .map(|(name, bytes)| {
                let mut entry = json!({
                    "type": "file", "path": name, "size": bytes.len(), "oid": git_blob(bytes),
                });
                if is_large(name) {
                    entry["lfs"] =
                        json!({"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 130});
                }
                entry
            })
            .collect(),
        _ => return refusal(404, &[("x-error-code", "RevisionNotFound".to_owned())]),
    };
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn resolve(
    state: &State,
    ask: &Ask,
    repo: &Repo,
    name: &str,
    bytes: &[u8],
    fault: &Fault,
) -> Response<Body> {
    let mut etag = format!("\"{}\"", etag(name, bytes));
    if matches!(fault, Fault::OtherEtag) {
        etag = format!("\"{}\"", "0".repeat(etag.len() - 2));
    }
    let size = match fault {
        Fault::ClaimSize(size) => *size,
        _ => bytes.len() as u64,
    };
    if is_large(name) {
        // By another name than the hub's: another host.
        let location = format!(
            "http://localhost:{}/{}?Signature=secret",
            state.storage.port(),
            sha256(bytes)
        );
        return Response::builder()
            .status(302)
            .header("location", location)
            .header("x-repo-commit", &repo.commit)
            .header("x-linked-etag", etag)
            .header("x-linked-size", size)
            // Of the redirect, and nothing to keep a file by.
            .header("etag", "\"of/the/redirect\"")
            .body(Body::from("over there"))
            .unwrap();
    }
    if ask.method == Method::HEAD {
        return Response::builder()
            .header("etag", etag)
            .header("content-length", size)
            .header("x-repo-commit", &repo.commit)
            .body(Body::empty())
            .unwrap();
    }
    let mut response = send(ask, bytes, &etag, fault);
    let commit = repo.commit.parse().unwrap();
    response.headers_mut().insert("x-repo-commit", commit);
    response
}

/// A file's bytes, or the part of them that was asked for.
fn send(ask: &Ask, bytes: &[u8], etag: &str, fault: &Fault) -> Response<Body> {
    let wanted = ask.range.as_deref().map(|range| {
        let start = range.strip_prefix("bytes=").unwrap().strip_suffix('-');
        start.unwrap().parse::<usize>().unwrap()
    });
    let unchanged = ask.if_range.as_deref().is_none_or(|own| own == etag);
    let start = match (wanted, fault) {
        (None, _) | (_, Fault::WholeFile) => None,
        (Some(_), _) if !unchanged => None,
        (Some(start), _) => Some(start),
    };
    let mut headers = HeaderMap::new();
    headers.insert("etag", etag.parse().unwrap());
    let mut part = match start {
        Some(start) if start >= bytes.len() => return refusal(416, &[]),
        Some(start) => {
            let said = match fault {
                Fault::OtherPart => start - 1,
                _ => start,
            };
            let range = format!("bytes {said}-{}/{}", bytes.len() - 1, bytes.len());
            headers.insert("content-range", range.parse().unwrap());
            bytes[start..].to_vec()
        }
        None => bytes.to_vec(),
    };
    if matches!(fault, Fault::OtherBytes) {
        part.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let body = match *fault {
        Fault::Longer(more) => {
            part.extend(vec![0; more]);
            in_pieces(part, 2, End::InOrder)
        }
        Fault::Shorter(len) => {
            part.truncate(len);
            in_pieces(part, 1, End::InOrder)
        }
        Fault::CutAfter(len) => {
            headers.insert("content-length", part.len().into());
            part.truncate(len);
            in_pieces(part, 1, End::Cut)
        }
        Fault::StallAfter(len) => {
            headers.insert("content-length", part.len().into());
            part.truncate(len);
            in_pieces(part, 1, End::Stall)
        }
        Fault::InPieces(num_pieces) => in_pieces(part, num_pieces, End::InOrder),
        _ => Body::from(part),
    };
    let mut response = Response::builder()
        .status(if start.is_some() { 206 } else { 200 })
        .body(body)
        .unwrap();
    response.headers_mut().extend(headers);
    response
}

enum End {
    InOrder,
    Cut,
    Stall,
}

fn in_pieces(bytes: Vec<u8>, num_pieces: usize, end: End) -> Body {
    /// For what was written to be on its way.
    const PAUSE: Duration = Duration::from_millis(3);
    let len = bytes.len().div_ceil(num_pieces).max(1);
    let pieces: Vec<Bytes> = bytes.chunks(len).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).map(Ok::<Bytes, std::io::Error>);
    let pieces = pieces.then(|piece| async {
        tokio::time::sleep(PAUSE).await;
        piece
    });
    let last = stream::once(async move {
        tokio::time::sleep(PAUSE).await;
        match end {
            End::InOrder => Ok(Bytes::new()),
            End::Cut => Err(std::io::Error::other("cut")),
            End::Stall => std::future::pending().await,
        }
    });
    Body::from_stream(pieces.chain(last))
}
