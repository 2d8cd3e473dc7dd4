//! Compiled kernels on disk: a cache that is filled at run time, and precompiled folders.
//!
//! Manages names and files only; compiles nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::arch::Arch;

/// Folders of compiled kernels.
#[derive(Debug)]
pub struct KernelStore {
    /// Folder of precompiled kernels; read only.
    precompiled: Option<PathBuf>,
    /// Cache folder; `None` if no suitable place is known.
    cache: Option<PathBuf>,
    /// Whether the warning that nothing can be cached was shown.
    warned: AtomicBool,
}

/// A kernel's source text and its compile-time constants.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    /// Name of the source, for file names and messages.
    pub name: &'a str,
    /// The common header followed by the source.
    pub text: &'a str,
    /// Compile-time constants, in order.
    pub defines: &'a [(&'static str, u32)],
}

impl Unit<'_> {
    /// Returns the file name in a precompiled folder; it does not depend on the compiler.
    pub fn file_name(&self, arch: &Arch) -> String {
        self.named(arch, "any")
    }

    fn named(&self, arch: &Arch, compiler: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [self.text, &arch.to_string(), compiler] {
            // The lengths keep adjacent parts apart.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        for (name, value) in self.defines {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&value.to_le_bytes());
        }
        let hash = hasher.finalize().to_hex();
        let name = self.name.trim_end_matches(".cu");
        format!("{name}-{arch}-{}.cubin", &hash[..32])
    }
}

impl KernelStore {
    /// Creates a store with the operator's folder of precompiled kernels, and `cache` as the cache
    /// folder or, if `None`, one in the system's cache directory.
    pub fn new(precompiled: Option<PathBuf>, cache: Option<PathBuf>) -> Self {
        Self {
            precompiled,
            cache: cache.or_else(default_cache),
            warned: AtomicBool::new(false),
        }
    }

    /// Whether a precompiled folder was given.
    pub fn has_precompiled(&self) -> bool {
        self.precompiled.is_some()
    }

    /// Returns precompiled machine code that runs on `arch`.
    pub fn precompiled(&self, unit: &Unit<'_>, arch: &Arch) -> Option<Vec<u8>> {
        let folder = self.precompiled.as_ref()?;
        arch.runs()
            .iter()
            .find_map(|arch| read(&folder.join(unit.file_name(arch))))
    }

    /// Returns machine code that this `compiler` made for `arch` before.
    pub fn cached(&self, unit: &Unit<'_>, arch: &Arch, compiler: &str) -> Option<Vec<u8>> {
        read(&self.cache.as_ref()?.join(unit.named(arch, compiler)))
    }

    /// Stores machine code for the next start. If that fails, it only logs a warning.
    pub fn keep(&self, unit: &Unit<'_>, arch: &Arch, compiler: &str, code: &[u8]) {
        let Some(folder) = &self.cache else {
            self.warn("HOME is not set");
            return;
        };
        if let Err(error) = write_whole(folder, &unit.named(arch, compiler), code) {
            self.warn(&format!("{}: {error}", folder.display()));
        }
    }

    fn warn(&self, reason: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason,
                "compiled kernels are not cached, so each start compiles them again: set \
                 MEDGEMMA_KERNEL_CACHE to a writable directory"
            );
        }
    }
}

/// Writes a file atomically: it exists completely or not at all, also with concurrent writers.
///
/// # Errors
/// Fails when the folder cannot be created or written.
pub fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let unique = getrandom::u64().map_err(io::Error::other)?;
    let part = folder.join(format!(".{name}.{unique:016x}.part"));
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, folder.join(name)))
        .inspect_err(|_| {
            // A leftover part would only waste disk space.
            let _ = std::fs::remove_file(&part);
        })
}

/// Reads a non-empty file; a full disk leaves empty ones.
fn read(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok().filter(|code| !code.is_empty())
}

fn default_cache() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("medgemma/kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit<'static> = Unit {
        name: "norm.cu",
        text: "__global__ …",
        defines: &[("ROWS", 4)],
    };

    fn arch(name: &str) -> Arch {
        name.parse().unwrap()
    }

    #[test]
    fn what_was_kept_is_found_by_content_architecture_and_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("deep/cache");
        let store = KernelStore::new(None, Some(cache.clone()));
        assert_eq!(store.cached(&UNIT, &arch("sm_80"), "13.0"), None);
        store.keep(&UNIT, &arch("sm_80"), "13.0", b"code");
        let again = KernelStore::new(None, Some(cache.clone()));
        let found = |unit: &Unit<'_>, name, compiler| again.cached(unit, &arch(name), compiler);
        assert_eq!(found(&UNIT, "sm_80", "13.0"), Some(b"code".to_vec()));
        assert_eq!(found(&UNIT, "sm_90", "13.0"), None);
        assert_eq!(found(&UNIT, "sm_80", "13.1"), None);
        let other_text = Unit {
            text: "else",
            ..UNIT
        };
        assert_eq!(found(&other_text, "sm_80", "13.0"), None);
        let other_define = Unit {
            defines: &[("ROWS", 5)],
            ..UNIT
        };
        assert_eq!(found(&other_define, "sm_80", "13.0"), None);
        // No partial file is left.
        assert_eq!(std::fs::read_dir(cache).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let store = KernelStore::new(None, Some(file));
        store.keep(&UNIT, &arch("sm_80"), "13.0", b"code");
        assert_eq!(store.cached(&UNIT, &arch("sm_80"), "13.0"), None);
        assert!(store.warned.load(Ordering::Relaxed));
    }

    #[test]
    fn code_made_ahead_serves_later_gpus_of_its_generation() {
        let folder = tempfile::tempdir().unwrap();
        let name = UNIT.file_name(&arch("sm_80"));
        write_whole(folder.path(), &name, b"code").unwrap();
        let store = KernelStore::new(Some(folder.path().to_owned()), None);
        let gpu = |major, minor| Arch::of_gpu(major, minor).unwrap();
        let found = |gpu| store.precompiled(&UNIT, &gpu);
        assert_eq!(found(gpu(8, 0)), Some(b"code".to_vec()));
        assert_eq!(found(gpu(8, 9)), Some(b"code".to_vec()));
        assert_eq!(found(gpu(9, 0)), None);
    }

    #[test]
    fn an_empty_file_is_not_code() {
        let folder = tempfile::tempdir().unwrap();
        let name = UNIT.file_name(&arch("sm_80"));
        write_whole(folder.path(), &name, b"").unwrap();
        let store = KernelStore::new(Some(folder.path().to_owned()), None);
        assert_eq!(store.precompiled(&UNIT, &arch("sm_80")), None);
    }
}
