//! A device's memory, as seen by a plan that is made before anything is allocated.

/// Available memory, and what a backend takes from it besides weights, activations and KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Number of bytes that may be used; `None` if unknown.
    pub available: Option<u64>,
    /// Whether other programs use this memory too.
    pub sharing: MemorySharing,
    /// Number of bytes of one number in the KV cache.
    pub kv_element_bytes: usize,
    /// Number of bytes that the device's driver takes for itself, its code and its queues.
    pub driver_bytes: u64,
    /// Number of bytes through which a matmul or attention that is split over the device passes
    /// its partial results; 0 if none is split.
    pub split_bytes: u64,
    /// Rows for which captured steps keep activations of their own; `None` if no step is captured.
    pub captured_rows: Option<CapturedRows>,
}

/// Whether other programs use a memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySharing {
    /// The machine's memory: the program itself and others live there.
    Shared,
    /// A device's own memory, which this program may fill.
    Exclusive,
}

/// Numbers of rows for which a decode step is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedRows {
    /// Steps with many rows are padded to a multiple of this number.
    pub multiple: usize,
    /// Maximum number of rows of a captured step.
    pub max: usize,
}

impl CapturedRows {
    /// Returns the largest number of rows of a captured step when at most `max_sequences`
    /// sequences decode at a time, padding included.
    pub fn at_most(self, max_sequences: usize) -> usize {
        max_sequences.next_multiple_of(self.multiple).min(self.max)
    }
}

impl DeviceMemory {
    /// Returns the machine's own memory, where keys and values are f32 and no step is captured.
    pub fn of_host(available: Option<u64>) -> Self {
        Self {
            available,
            sharing: MemorySharing::Shared,
            kv_element_bytes: 4,
            driver_bytes: 0,
            split_bytes: 0,
            captured_rows: None,
        }
    }

    /// Returns the available bytes, or the largest number if they are unknown.
    pub fn available_or_max(self) -> u64 {
        self.available.unwrap_or(u64::MAX)
    }
}
