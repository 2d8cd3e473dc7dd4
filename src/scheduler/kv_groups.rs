//! The two KV groups, and how many blocks a sequence needs in each.
//!
//! This is pure arithmetic; the code that sizes the pools uses it too.

use std::iter::Sum;
use std::ops::Add;

/// Kinds of attention layers that a model has. The layers of one kind form a group: they share a
/// pool of blocks and one block table per sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvGroups {
    /// Every layer attends to all positions before it.
    Global,
    /// Every layer attends to the last `window` positions, the query's own included.
    Sliding {
        /// Number of keys a query sees; at least 1.
        window: usize,
    },
    /// Both kinds.
    Both {
        /// Number of keys a query of a sliding layer sees; at least 1.
        window: usize,
    },
}

impl KvGroups {
    /// Whether there are global layers.
    pub fn has_global(self) -> bool {
        matches!(self, Self::Global | Self::Both { .. })
    }

    /// Window of the sliding layers; `None` if there are no such layers.
    pub fn window(self) -> Option<usize> {
        match self {
            Self::Global => None,
            Self::Sliding { window } | Self::Both { window } => Some(window),
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
    pub fn blocks_for(self, num_tokens: usize, max_chunk: usize, block_size: usize) -> BlockCount {
        let sliding_tokens = self.window().map_or(0, |window| {
            let longest_span = (window - 1)
                .saturating_add(max_chunk)
                .saturating_add(block_size - 1);
            num_tokens.min(longest_span)
        });
        let global_tokens = if self.has_global() { num_tokens } else { 0 };
        BlockCount {
            global: global_tokens.div_ceil(block_size),
            sliding: sliding_tokens.div_ceil(block_size),
        }
    }
}

/// A number of blocks in each group; 0 in a group that the model does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCount {
    /// Blocks of the global layers.
    pub global: usize,
    /// Blocks of the sliding layers.
    pub sliding: usize,
}

impl BlockCount {
    /// Whether this many blocks can be taken from `available`.
    pub fn fits_in(self, available: Self) -> bool {
        self.global <= available.global && self.sliding <= available.sliding
    }

    /// Subtracts `taken`, stopping at 0 in each group.
    pub fn saturating_sub(self, taken: Self) -> Self {
        Self {
            global: self.global.saturating_sub(taken.global),
            sliding: self.sliding.saturating_sub(taken.sliding),
        }
    }
}

impl Add for BlockCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            global: self.global + other.global,
            sliding: self.sliding + other.sliding,
        }
    }
}

impl Sum for BlockCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}
