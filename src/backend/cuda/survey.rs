//! A dry-run device: computes nothing and collects the kernels it was asked to launch.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::device::{Device, DevicePtr, KernelId, Launch, Source};
use crate::error::Result;

/// Address that is never read or written; aligned for every kernel.
const NOWHERE: DevicePtr = DevicePtr(1 << 40);

/// A kernel variant to compile: a source and its compile-time constants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant {
    /// The source's name.
    pub name: &'static str,
    /// The source text.
    pub text: &'static str,
    /// Compile-time constants.
    pub defines: Vec<(&'static str, u32)>,
}

/// Collects the kernels it is asked to launch.
#[derive(Debug, Default)]
pub struct DryRunDevice(Mutex<BTreeSet<Variant>>);

impl DryRunDevice {
    /// Returns all variants so far, in order.
    ///
    /// # Panics
    /// Never panics, since no code panics while it holds the lock.
    pub fn variants(&self) -> BTreeSet<Variant> {
        let variants = self.0.lock();
        variants.expect("nothing panics with the lock held").clone()
    }

    fn note(&self, kernel: &KernelId<'_>) {
        let Source { name, text } = kernel.source;
        let mut variants = self.0.lock().expect("nothing panics with the lock held");
        variants.insert(Variant {
            name,
            text,
            defines: kernel.defines.to_vec(),
        });
    }
}

impl Device for DryRunDevice {
    type Buffer = ();
    type Graph = ();

    fn allocate(&self, _num_bytes: usize) -> Result<()> {
        Ok(())
    }

    fn address(&self, (): &()) -> DevicePtr {
        NOWHERE
    }

    fn upload(&self, _data: &[u8], _to: DevicePtr) -> Result<()> {
        Ok(())
    }

    fn download(&self, _from: DevicePtr, data: &mut [u8]) -> Result<()> {
        data.fill(0);
        Ok(())
    }

    fn copy(&self, _from: DevicePtr, _to: DevicePtr, _num_bytes: usize) -> Result<()> {
        Ok(())
    }

    fn fill_zero(&self, _at: DevicePtr, _num_bytes: usize) -> Result<()> {
        Ok(())
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.note(&launch.kernel);
        Ok(())
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        work()
    }

    fn replay(&self, (): &()) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
