//! The cache between this and Python's huggingface_hub, against the same imitation. Needs a Python
//! that has it, named by HUB_PYTHON; without one there is nothing to try.

use std::path::Path;
use std::process::Command;

use medgemma::config::HubAccess;
use medgemma::registry;

use super::imitation::Imitation;
use super::{ID, needed, noise, settings};

const ALL: &str = "
import sys
from huggingface_hub import snapshot_download, scan_cache_dir
dir = snapshot_download('tests/tiny', local_files_only=(sys.argv[1] == 'offline'),
                        allow_patterns=['*.json', '*.safetensors'])
repo, = scan_cache_dir().repos
assert repo.repo_id == 'tests/tiny' and repo.refs['main'].snapshot_path.samefile(dir), repo
assert not scan_cache_dir().warnings
print(dir)
";

fn python(hub: &Imitation, cache: &Path, access: &str) -> Option<String> {
    let python = std::env::var_os("HUB_PYTHON")?;
    let output = Command::new(python)
        .args(["-c", ALL, access])
        .env("HF_ENDPOINT", hub.url())
        .env("HF_HUB_CACHE", cache)
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned(),
    )
}

#[test]
#[ignore = "needs HUB_PYTHON, a Python with huggingface_hub: .ci/run has one"]
fn python_finds_what_was_pulled() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    hub.asked();
    let found = python(&hub, cache.path(), "offline").expect("HUB_PYTHON names a Python");
    assert_eq!(found, pulled.dir.to_str().unwrap());
    assert_eq!(hub.num_asked(), 0);
    // And has nothing to add to it.
    python(&hub, cache.path(), "online");
    assert!(hub.asked().iter().all(|ask| !super::is_for_bytes(ask)));
}

#[test]
#[ignore = "needs HUB_PYTHON, a Python with huggingface_hub: .ci/run has one"]
fn what_python_downloaded_is_found() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let dir = python(&hub, cache.path(), "online").expect("HUB_PYTHON names a Python");
    let mut settings = settings(&hub, cache.path());
    settings.hub.access = HubAccess::Offline;
    let pulled = registry::pull(&settings).unwrap();
    assert_eq!(pulled.dir.to_str().unwrap(), dir);
    for (name, bytes) in needed(&noise()) {
        assert_eq!(
            std::fs::read(pulled.dir.join(name)).unwrap(),
            bytes,
            "{name}"
        );
    }
    // And has nothing to add to it.
    hub.asked();
    settings.hub.access = HubAccess::Online;
    registry::pull(&settings).unwrap();
    assert!(hub.asked().iter().all(|ask| !super::is_for_bytes(ask)));
}
