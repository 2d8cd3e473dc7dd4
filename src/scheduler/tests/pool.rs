//! A pool of blocks compared with a simple model of it: which tables hold a block, and which block
//! is reused next.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::{BlockId, CacheSalt};

use super::super::block_hash::BlockHash;
use super::super::block_pool::BlockPool;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A new table takes this many blocks.
    Take(usize),
    /// The n-th table (modulo their number) frees all of its blocks, its end first.
    GiveBack(usize),
    /// A block of the n-th table (modulo their number) is full and has these contents.
    Register(usize, usize, u8),
    /// A new table holds the block with these contents, if there is one.
    Share(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..5usize).prop_map(Op::Take),
        4 => (0..8usize).prop_map(Op::GiveBack),
        5 => (0..8usize, 0..4usize, 0..12u8).prop_map(|(n, idx, what)| Op::Register(n, idx, what)),
        3 => (0..12u8).prop_map(Op::Share),
    ];
    vec(op, 1..80)
}

fn hash(contents: u8) -> BlockHash {
    BlockHash::root(Some(CacheSalt([contents; 32])))
}

struct Books {
    pool: BlockPool,
    tables: Vec<Vec<BlockId>>,
    /// Contents by block.
    contents: Vec<Option<u8>>,
    /// Blocks in the order in which they are given out.
    blank: VecDeque<BlockId>,
    cached: VecDeque<BlockId>,
}

impl Books {
    fn new(num_blocks: u32) -> Self {
        Self {
            pool: BlockPool::new(num_blocks as usize),
            tables: Vec::new(),
            contents: vec![None; num_blocks as usize],
            blank: (0..num_blocks).map(BlockId).collect(),
            cached: VecDeque::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Take(count) if count <= self.blank.len() + self.cached.len() => {
                let expected: Vec<BlockId> = (0..count).map(|_| self.take()).collect();
                let taken: Vec<BlockId> = self.pool.take(count).collect();
                assert_eq!(taken, expected);
                self.tables.push(taken);
            }
            Op::GiveBack(nth) if !self.tables.is_empty() => {
                let table = self.tables.remove(nth % self.tables.len());
                for &block in table.iter().rev() {
                    match self.contents[block.0 as usize] {
                        _ if self.num_holders(block) > 0 => {}
                        Some(_) => self.cached.push_back(block),
                        None => self.blank.push_back(block),
                    }
                }
                self.pool.give_back(table.into_iter().rev());
            }
            Op::Register(nth, idx, what) if !self.tables.is_empty() => {
                let table = &self.tables[nth % self.tables.len()];
                let block = table[idx % table.len()];
                // The scheduler registers a block once.
                if self.contents[block.0 as usize].is_none() {
                    if self.find(what).is_none() {
                        self.contents[block.0 as usize] = Some(what);
                    }
                    self.pool.register(block, hash(what));
                }
            }
            Op::Share(what) => {
                if let Some(block) = self.find(what) {
                    self.cached.retain(|&other| other != block);
                    self.tables.push(vec![block]);
                    self.pool.share(block);
                }
            }
            Op::Take(_) | Op::GiveBack(_) | Op::Register(..) => {}
        }
    }

    fn take(&mut self) -> BlockId {
        let block = self.blank.pop_front().or_else(|| self.cached.pop_front());
        let block = block.expect("there are enough");
        self.contents[block.0 as usize] = None;
        block
    }

    fn find(&self, what: u8) -> Option<BlockId> {
        let idx = self.contents.iter().position(|&has| has == Some(what))?;
        Some(BlockId(idx as u32))
    }

    fn num_holders(&self, block: BlockId) -> usize {
        let holds = |table: &&Vec<BlockId>| table.contains(&block);
        self.tables.iter().filter(holds).count()
    }

    fn check(&self) {
        let pool = &self.pool;
        assert_eq!(pool.blank().collect::<VecDeque<_>>(), self.blank);
        assert_eq!(pool.cached().collect::<VecDeque<_>>(), self.cached);
        assert_eq!(pool.num_cached(), self.cached.len());
        assert_eq!(pool.num_free(), self.blank.len() + self.cached.len());
        for (idx, contents) in self.contents.iter().enumerate() {
            let block = BlockId(idx as u32);
            assert_eq!(pool.num_refs(block), self.num_holders(block), "{block:?}");
            assert_eq!(pool.hash(block), contents.map(hash), "{block:?}");
        }
        for what in 0..12 {
            assert_eq!(pool.find(&hash(what)), self.find(what), "{what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn blocks_go_in_the_order_of_their_freeing_and_those_without_contents_first(
        num_blocks in 1..10u32,
        ops in ops(),
    ) {
        let mut books = Books::new(num_blocks);
        for op in ops {
            books.run(op);
            books.check();
        }
    }
}
