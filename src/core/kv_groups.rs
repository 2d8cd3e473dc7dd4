//! The KV groups of a model, and how many blocks a sequence needs in each.
//!
//! Layers that see the same keys form a group: they share block tables, and one number of blocks.
//! This is pure arithmetic; the scheduler, the code that sizes the pools and backends use it.

use std::iter::Sum;
use std::ops::{Add, Index};

/// Maximum number of KV groups of a model.
pub const MAX_KV_GROUPS: usize = 4;

/// The KV groups of a model: the window of each. Gemma 3 has a global and a sliding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvGroups {
    windows: [Option<usize>; MAX_KV_GROUPS],
    len: usize,
}

impl KvGroups {
    /// Creates the list from each group's window: the number of keys that a query sees, its own
    /// included; `None` if it sees all positions before it.
    ///
    /// # Panics
    /// Panics if there are no groups, or more than [`MAX_KV_GROUPS`].
    pub const fn new(windows: &[Option<usize>]) -> Self {
        let len = windows.len();
        assert!(len > 0 && len <= MAX_KV_GROUPS, "1 to 4 KV groups");
        let mut all = [None; MAX_KV_GROUPS];
        all.split_at_mut(len).0.copy_from_slice(windows);
        Self { windows: all, len }
    }

    /// Window of each group, in order.
    pub fn windows(&self) -> &[Option<usize>] {
        &self.windows[..self.len]
    }

    /// Number of groups.
    pub fn num_groups(&self) -> usize {
        self.len
    }

    /// Index of the first group whose layers see all positions, if there is one. Of such a group
    /// no block of a sequence is freed before the sequence ends.
    pub fn first_global(&self) -> Option<usize> {
        self.windows().iter().position(Option::is_none)
    }

    /// Returns the name of a group in messages and metrics; with its index if there are several
    /// of its kind.
    pub fn name(&self, group: usize) -> String {
        let is_global = |window: &Option<usize>| window.is_none();
        let own = is_global(&self.windows[group]);
        let name = if own { "global" } else { "sliding" };
        let windows = self.windows().iter();
        match windows.filter(|window| is_global(window) == own).count() {
            1 => name.to_owned(),
            _ => format!("{name}_{group}"),
        }
    }

    /// Maximum number of blocks that a sequence of `num_tokens` computed tokens ever holds, when no
    /// step computes more than `max_chunk` of them, wherever the chunks begin.
    ///
    /// A chunk of n queries sees n + window − 1 keys of a sliding layer. Blocks are freed as a
    /// whole, so up to `block_size − 1` older positions stay in addition:
    ///
    /// ```text
    ///            window − 1     chunk
    ///   . . x x k k k k k k k q q q q q     x: behind the window, but in a block with k
    ///   |-------|-------|-------|-------
    /// ```
    ///
    /// With `max_chunk = 1`, this is what a sequence holds while it decodes.
    pub fn blocks_for(&self, num_tokens: usize, max_chunk: usize, block_size: usize) -> BlockCount {
        let mut blocks = BlockCount::default();
        for (group, window) in self.windows().iter().enumerate() {
            let held = match window {
                None => num_tokens,
                Some(window) => {
                    let longest_span = (window - 1)
                        .saturating_add(max_chunk)
                        .saturating_add(block_size - 1);
                    num_tokens.min(longest_span)
                }
            };
            blocks.0[group] = held.div_ceil(block_size);
        }
        blocks
    }
}

impl Default for KvGroups {
    /// One group, whose layers see all positions.
    fn default() -> Self {
        Self::new(&[None])
    }
}

/// A number of blocks in each group; 0 in a group that the model does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCount([usize; MAX_KV_GROUPS]);

impl BlockCount {
    /// Creates the count from the number in each group, in order.
    ///
    /// # Panics
    /// Panics for more than [`MAX_KV_GROUPS`] numbers.
    pub fn new(counts: &[usize]) -> Self {
        let mut blocks = Self::default();
        blocks.0[..counts.len()].copy_from_slice(counts);
        blocks
    }

    /// Whether this many blocks can be taken from `available`.
    pub fn fits_in(self, available: Self) -> bool {
        let mut pairs = self.0.iter().zip(&available.0);
        pairs.all(|(wanted, available)| wanted <= available)
    }

    /// Subtracts `taken`, stopping at 0 in each group.
    pub fn saturating_sub(self, taken: Self) -> Self {
        Self(std::array::from_fn(|group| {
            self.0[group].saturating_sub(taken.0[group])
        }))
    }

    /// Number of blocks in all groups together.
    pub fn total(self) -> usize {
        self.0.iter().sum()
    }

    /// The number in each possible group, in order.
    pub fn by_group(self) -> [usize; MAX_KV_GROUPS] {
        self.0
    }
}

impl FromIterator<usize> for BlockCount {
    /// Collects the number in each group, in order.
    ///
    /// # Panics
    /// Panics for more than [`MAX_KV_GROUPS`] numbers.
    fn from_iter<I: IntoIterator<Item = usize>>(counts: I) -> Self {
        let mut blocks = Self::default();
        for (group, count) in counts.into_iter().enumerate() {
            blocks.0[group] = count;
        }
        blocks
    }
}

impl Index<usize> for BlockCount {
    type Output = usize;

    fn index(&self, group: usize) -> &usize {
        &self.0[group]
    }
}

impl Add for BlockCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|group| self.0[group] + other.0[group]))
    }
}

impl Sum for BlockCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}
