//! A step's metadata: packed on the host, copied to the device at once.
//!
//! ```text
//! fixed by the number of rows                                               │ variable length
//! token_ids positions │ logit_rows │ table_rows ×groups │ key_ranges ×groups │ tables │ sampled_inputs │ tiles
//! ```
//!
//! So a graph that was captured for a number of rows always finds everything in the same place,
//! however long the sequences are. Knows nothing of kernels except what they read.

use super::device::DevicePtr;
use super::kernels::attention::tiles_of;
use crate::backend::attention::BLOCK_SIZE;
use crate::backend::step_input::{StepInput, StepSequence};
use crate::core::{BlockId, BlockTable};

/// Unit of `table_rows`, in table entries.
pub(super) const TABLE_STRIDE: usize = 32;
/// Offset of table addresses, in entries: freed blocks are not in the tables, but kernels count
/// blocks from position 0.
const BIAS: usize = 1 << 16;
/// Alignment of every array, in 4-byte words.
const ALIGN_WORDS: usize = 64;

/// Places of the arrays, in words from the buffer's start. Depends on the number of rows and KV
/// groups only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepLayout {
    /// Number of rows, padding included.
    pub(super) num_rows: usize,
    num_groups: usize,
    array_words: usize,
}

impl StepLayout {
    /// Number of arrays of one word per row, besides those of each group.
    const NUM_SINGLE: usize = 3;

    /// Returns the layout of a step with this many rows.
    pub(super) fn new(num_rows: usize, num_groups: usize) -> Self {
        Self {
            num_rows,
            num_groups,
            array_words: num_rows.next_multiple_of(ALIGN_WORDS),
        }
    }

    fn array(&self, idx: usize) -> usize {
        idx * self.array_words
    }

    /// `(rows)` u32
    pub(super) fn token_ids(&self) -> usize {
        self.array(0)
    }

    /// `(rows)` u32
    pub(super) fn positions(&self) -> usize {
        self.array(1)
    }

    /// `(logit rows)` u32
    pub(super) fn logit_rows(&self) -> usize {
        self.array(2)
    }

    /// `(rows)` u32: start of this row's sequence in the group's tables, in strides.
    pub(super) fn table_rows(&self, group: usize) -> usize {
        self.array(Self::NUM_SINGLE + group)
    }

    /// `(rows, 2)` u32: first position that the row sees, and one past the last.
    pub(super) fn key_ranges(&self, group: usize) -> usize {
        self.array(Self::NUM_SINGLE + self.num_groups + 2 * group)
    }

    /// Block tables of all groups.
    pub(super) fn tables(&self) -> usize {
        self.array(Self::NUM_SINGLE + 3 * self.num_groups)
    }

    /// Maximum number of words of a step within these limits; determines the buffer's size.
    pub(super) fn max_words(
        num_groups: usize,
        max_rows: usize,
        max_sequences: usize,
        max_model_len: usize,
    ) -> usize {
        let blocks = max_model_len.div_ceil(BLOCK_SIZE) + 1;
        // Each table may begin up to a stride late; padding has one of its own.
        let tables = num_groups * (max_sequences + 1) * (blocks + TABLE_STRIDE);
        Self::new(max_rows, num_groups).tables() + tables + 2 * ALIGN_WORDS + 4 * max_rows
    }

    /// Required length of the array of zeros that is passed as `num_released`.
    pub(super) fn max_table_rows(max_words: usize) -> usize {
        (BIAS + max_words) / TABLE_STRIDE + 1
    }
}

/// A step's metadata, packed for the copy.
#[derive(Debug)]
pub(super) struct PackedStep {
    /// Places of the arrays.
    pub(super) layout: StepLayout,
    /// All words.
    pub(super) words: Vec<u32>,
    /// Offset of the pairs `(row, sample)` of rows whose token is still on the device.
    pub(super) sampled_inputs: usize,
    /// Offset of the tiles, `(first row, rows)` each, of one sequence.
    pub(super) tiles: usize,
    /// Number of tiles; none if every sequence has one row.
    pub(super) num_tiles: usize,
}

impl PackedStep {
    /// Packs `input`, padded to `num_rows` rows with sequences that see only `padding_blocks`: one
    /// of each group, which no sequence uses. `windows` has the window of each group.
    pub(super) fn new(
        input: &StepInput,
        windows: &[Option<usize>],
        num_rows: usize,
        padding_blocks: &[BlockId],
    ) -> Self {
        let layout = StepLayout::new(num_rows, windows.len());
        let mut packed = Self {
            layout,
            words: vec![0; layout.tables()],
            sampled_inputs: 0,
            tiles: 0,
            num_tiles: 0,
        };
        for (row, (id, &position)) in input.token_ids.iter().zip(&input.positions).enumerate() {
            packed.words[layout.token_ids() + row] = id.0;
            packed.words[layout.positions() + row] = position;
        }
        let logit_rows = layout.logit_rows();
        packed.words[logit_rows..logit_rows + input.logit_rows.len()]
            .copy_from_slice(&input.logit_rows);
        for sequence in &input.sequences {
            packed.add(sequence, windows);
        }
        let num_real = input.token_ids.len();
        if num_real < num_rows {
            packed.fill_up(num_real, padding_blocks);
        }
        packed.sampled_inputs = packed.align();
        let pairs = input
            .sampled_inputs
            .iter()
            .flat_map(|input| [input.row, input.sample]);
        packed.words.extend(pairs);
        packed.tiles = packed.align();
        if input.sequences.iter().any(|sequence| sequence.len > 1) {
            let word = |number: usize| u32::try_from(number).expect("rows are far below 4 G");
            let sequences = input.sequences.iter();
            let tiles = tiles_of(sequences.map(|s| (word(s.row), word(s.len))));
            packed.num_tiles = tiles.len();
            packed.words.extend(tiles.into_iter().flatten());
        }
        packed
    }

    /// Pads to the next array boundary.
    fn align(&mut self) -> usize {
        let at = self.words.len().next_multiple_of(ALIGN_WORDS);
        self.words.resize(at, 0);
        at
    }

    /// Returns the address from which table entries are counted, in a buffer at `base`: a little
    /// before the tables.
    pub(super) fn tables_at(base: DevicePtr, layout: StepLayout) -> DevicePtr {
        let first = base.at(layout.tables() * 4).0;
        DevicePtr(first.wrapping_sub(BIAS as u64 * 4))
    }

    fn add(&mut self, sequence: &StepSequence, windows: &[Option<usize>]) {
        for (group, (table, &window)) in sequence.tables.iter().zip(windows).enumerate() {
            let table_row = self.add_table(table);
            for idx in 0..sequence.len {
                let range = sequence.key_range(sequence.start + idx, window);
                self.set_row(
                    group,
                    sequence.row + idx,
                    table_row,
                    [range.start, range.end],
                );
            }
        }
    }

    fn fill_up(&mut self, num_real: usize, padding_blocks: &[BlockId]) {
        for (group, &block) in padding_blocks.iter().enumerate() {
            let table_row = self.add_table(&BlockTable::new(BLOCK_SIZE, 0, vec![block]));
            for row in num_real..self.layout.num_rows {
                self.set_row(group, row, table_row, [0, 1]);
            }
        }
    }

    fn set_row(&mut self, group: usize, row: usize, table_row: u32, range: [usize; 2]) {
        self.words[self.layout.table_rows(group) + row] = table_row;
        let ranges = self.layout.key_ranges(group) + 2 * row;
        for (word, position) in self.words[ranges..ranges + 2].iter_mut().zip(range) {
            *word = u32::try_from(position).expect("contexts are far below 4 G tokens");
        }
    }

    /// Adds a table and returns the place of its position 0, in strides, as if no block had been
    /// freed.
    fn add_table(&mut self, table: &BlockTable) -> u32 {
        let num_released = table.num_released();
        assert!(
            num_released <= BIAS,
            "{num_released} blocks given back are more than any context has"
        );
        let used = self.words.len() - self.layout.tables();
        let zero = (used + BIAS - num_released).next_multiple_of(TABLE_STRIDE);
        let first = zero + num_released - BIAS;
        self.words.resize(self.layout.tables() + first, 0);
        self.words
            .extend(table.blocks().iter().map(|block| block.0));
        u32::try_from(zero / TABLE_STRIDE).expect("tables have far fewer than 4 G entries")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::step_input::SampledInput;
    use crate::core::TokenId;

    const SPARE: [BlockId; 2] = [BlockId(900), BlockId(901)];
    const WINDOWS: [Option<usize>; 2] = [None, Some(1024)];
    const GLOBAL: usize = 0;
    const SLIDING: usize = 1;

    fn table(num_released: usize, blocks: std::ops::Range<u32>) -> BlockTable {
        BlockTable::new(BLOCK_SIZE, num_released, blocks.map(BlockId).collect())
    }

    /// Two sequences: one decodes at position 2100, one computes its first three tokens.
    fn input() -> StepInput {
        StepInput {
            token_ids: [7, 8, 9, 10].map(TokenId).to_vec(),
            positions: vec![2100, 0, 1, 2],
            sequences: vec![
                StepSequence {
                    row: 0,
                    start: 2100,
                    len: 1,
                    tables: vec![table(0, 0..66), table(33, 100..133)],
                    image_spans: vec![],
                },
                StepSequence {
                    row: 1,
                    start: 0,
                    len: 3,
                    tables: vec![table(0, 70..71), table(0, 140..141)],
                    image_spans: vec![],
                },
            ],
            sampled_inputs: vec![SampledInput { row: 0, sample: 5 }],
            logit_rows: vec![0, 3],
        }
    }

    /// Returns the block of a row's position, computed as a kernel does.
    fn block(packed: &PackedStep, group: usize, row: usize, position: usize) -> u32 {
        let layout = packed.layout;
        let table_row = packed.words[layout.table_rows(group) + row] as usize;
        let entry = table_row * TABLE_STRIDE + position / BLOCK_SIZE;
        packed.words[layout.tables() + entry - BIAS]
    }

    fn range(packed: &PackedStep, group: usize, row: usize) -> [u32; 2] {
        let at = packed.layout.key_ranges(group) + 2 * row;
        [packed.words[at], packed.words[at + 1]]
    }

    #[test]
    fn kernels_find_every_rows_blocks_and_keys() {
        let packed = PackedStep::new(&input(), &WINDOWS, 4, &SPARE);
        let find = |group, row, position| block(&packed, group, row, position);
        assert_eq!(find(GLOBAL, 0, 0), 0);
        assert_eq!(find(GLOBAL, 0, 2100), 65);
        assert_eq!(find(SLIDING, 0, 33 * BLOCK_SIZE), 100);
        assert_eq!(find(SLIDING, 0, 2100), 132);
        assert_eq!(find(GLOBAL, 3, 2), 70);
        assert_eq!(find(SLIDING, 1, 0), 140);
        assert_eq!(range(&packed, GLOBAL, 0), [0, 2101]);
        assert_eq!(range(&packed, SLIDING, 0), [2100 - 1023, 2101]);
        assert_eq!(range(&packed, SLIDING, 2), [0, 2]);
        assert_eq!(
            packed.words[packed.layout.token_ids()..][..4],
            [7, 8, 9, 10]
        );
        assert_eq!(packed.words[packed.layout.logit_rows()..][..2], [0, 3]);
        assert_eq!(packed.words[packed.sampled_inputs..][..2], [0, 5]);
        assert_eq!(packed.words[packed.tiles..], [0, 1, 1, 3]);
        assert_eq!(packed.num_tiles, 2);
        assert!(packed.words.len() <= StepLayout::max_words(2, 4, 2, 2101));
    }

    #[test]
    fn rows_that_fill_up_see_the_spare_blocks_only() {
        let packed = PackedStep::new(&input(), &WINDOWS, 8, &SPARE);
        for row in 4..8 {
            assert_eq!(block(&packed, GLOBAL, row, 0), 900);
            assert_eq!(block(&packed, SLIDING, row, 0), 901);
            assert_eq!(range(&packed, SLIDING, row), [0, 1]);
        }
        assert_eq!(block(&packed, SLIDING, 0, 2100), 132);
    }

    #[test]
    fn the_layout_depends_on_the_rows_alone() {
        let mut longer = input();
        longer.sequences[1].tables[GLOBAL] = table(0, 70..700);
        let short = PackedStep::new(&input(), &WINDOWS, 8, &SPARE);
        let long = PackedStep::new(&longer, &WINDOWS, 8, &SPARE);
        assert_eq!(short.layout, long.layout);
    }
}
