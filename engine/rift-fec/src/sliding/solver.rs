//! Lost shards from the parities of overlapping windows.

use super::sliding_coefficient;
use crate::field;
use crate::multiply::{self, Pieces, Rows};

/// Nobody has this key.
const FREE: u64 = u64::MAX;

/// One parity without the shards that are there: an equation in those that are not.
#[derive(Clone, Copy, Debug)]
struct Equation {
    is_used: bool,
    /// The place of the unknown that is in this equation, with coefficient 1, and in no other.
    pivot: u8,
    len: usize,
}

/// Equations in lost shards, kept in reduced form: each new one is eliminated against those before, so that a lost
/// shard is found as soon as what has come determines it, whatever else is unknown. Shards have keys: numbers that
/// grow in the order in which they were sent, of which the column is the remainder of 128.
///
/// A parity is added by [`begin`](Self::begin), [`subtract`](Self::subtract) of each shard of its window that is
/// there, [`lack`](Self::lack) of each that is not, and [`finish`](Self::finish). Then [`poll`](Self::poll) gives the
/// shards that were found. The work is one multiplication of a shard for each in the window, and for each pair of
/// equations; nothing is done for a window of which nothing is lost.
#[derive(Debug)]
pub struct SlidingSolver {
    pieces: Pieces,
    /// `equations.len()` rows of `len_max` bytes; what lies behind the length of an equation is zero.
    bytes: Box<[u8]>,
    /// `equations.len()` rows of `keys.len()` coefficients.
    coefficients: Box<[u8]>,
    equations: Box<[Equation]>,
    /// The lost shard that stands in each place.
    keys: Box<[u64]>,
    len_max: usize,
    /// The equation that is being added, and its row.
    fresh: Option<(usize, u8)>,
    /// For the shard that was found last.
    found: Box<[u8]>,
}

impl SlidingSolver {
    /// Room for `equations` parities of up to `len_max` bytes, and `unknowns` lost shards, at most 255 of each.
    #[must_use]
    pub fn new(equations: usize, unknowns: usize, len_max: usize) -> Self {
        let (equations, unknowns) = (equations.clamp(1, 255), unknowns.clamp(1, 255));
        let unused = Equation { is_used: false, pivot: 0, len: 0 };
        Self {
            pieces: Pieces::new(),
            bytes: vec![0; equations * len_max].into_boxed_slice(),
            coefficients: vec![0; equations * unknowns].into_boxed_slice(),
            equations: vec![unused; equations].into_boxed_slice(),
            keys: vec![FREE; unknowns].into_boxed_slice(),
            len_max,
            fresh: None,
            found: vec![0; len_max].into_boxed_slice(),
        }
    }

    /// Nothing is unknown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.iter().all(|&key| key == FREE)
    }

    /// The lost shards of which something is known.
    pub fn unknowns(&self) -> impl Iterator<Item = u64> + '_ {
        self.keys.iter().copied().filter(|&key| key != FREE)
    }

    /// How many equations have one of the shards of which `is_wanted` is true.
    pub fn equations_with(&self, is_wanted: impl Fn(u64) -> bool) -> usize {
        let has = |&equation: &usize| {
            let row = self.row(equation);
            self.equations[equation].is_used
                && self.keys.iter().zip(row).any(|(&key, &c)| c != 0 && key != FREE && is_wanted(key))
        };
        (0..self.equations.len()).filter(has).count()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (0..self.equations.len()).for_each(|equation| self.drop_equation(equation));
        self.keys.fill(FREE);
        self.fresh = None;
    }

    /// Starts on the parity in `row`. `false`, and then nothing else may be done for it, if it is too long. Where
    /// there is no room the equation with the oldest shard makes way.
    pub fn begin(&mut self, row: u8, parity: &[u8]) -> bool {
        self.abandon();
        if parity.len() > self.len_max || parity.is_empty() {
            return false;
        }
        if self.equations.iter().all(|e| e.is_used) {
            self.drop_oldest();
        }
        let Some(at) = self.equations.iter().position(|e| !e.is_used) else { return false };
        self.bytes[at * self.len_max..][..parity.len()].copy_from_slice(parity);
        self.equations[at] = Equation { is_used: false, pivot: 0, len: parity.len() };
        self.fresh = Some((at, row));
        true
    }

    /// Takes the shard with `key`, which is there, out of the parity, once. What is longer than the parity is cut.
    #[inline]
    pub fn subtract(&mut self, key: u64, shard: &[u8]) {
        let Some((at, row)) = self.fresh else { return };
        let shard = &shard[..shard.len().min(self.equations[at].len)];
        self.add_shard(at, sliding_coefficient(row, key as u8), shard);
    }

    /// The parity covers the shard with `key`, which is lost. `false` if there is no room: then the parity is given
    /// up.
    pub fn lack(&mut self, key: u64) -> bool {
        let Some((at, row)) = self.fresh else { return false };
        if key == FREE {
            self.abandon();
            return false;
        }
        let place =
            self.keys.iter().position(|&k| k == key).or_else(|| self.keys.iter().position(|&k| k == FREE));
        let Some(place) = place else {
            self.abandon();
            return false;
        };
        self.keys[place] = key;
        self.row_mut(at)[place] = sliding_coefficient(row, key as u8);
        true
    }

    /// The parity's window was gone through. Returns whether it tells anything new.
    pub fn finish(&mut self) -> bool {
        let Some((at, _)) = self.fresh.take() else { return false };
        self.equations[at].is_used = true;
        for other in 0..self.equations.len() {
            if other != at && self.equations[other].is_used {
                let factor = self.row(at)[usize::from(self.equations[other].pivot)];
                self.add_equation(at, other, factor);
            }
        }
        let is_news = self.settle(at);
        if !is_news {
            self.sweep();
        }
        is_news
    }

    /// The shard with `key` has come some other way: it is unknown no more.
    pub fn learn(&mut self, key: u64, shard: &[u8]) {
        self.abandon();
        let Some(place) = self.place(key) else { return };
        for at in 0..self.equations.len() {
            let coefficient = core::mem::take(&mut self.row_mut(at)[place]);
            if !self.equations[at].is_used || coefficient == 0 {
                continue;
            }
            let shard = &shard[..shard.len().min(self.len_max)];
            self.equations[at].len = self.equations[at].len.max(shard.len());
            self.add_shard(at, coefficient, shard);
        }
        self.keys[place] = FREE;
        for at in 0..self.equations.len() {
            if self.equations[at].is_used && usize::from(self.equations[at].pivot) == place {
                self.settle(at);
            }
        }
        self.sweep();
    }

    /// Gives up the lost shards before `key`, at the cost of one equation each at most.
    pub fn forget_before(&mut self, key: u64) {
        self.abandon();
        for place in 0..self.keys.len() {
            if self.keys[place] < key {
                self.forget(place);
            }
        }
    }

    /// A shard that has been found, with its key: padded with zeros to the length of a parity. It is unknown no more.
    pub fn poll(&mut self) -> Option<(u64, &[u8])> {
        self.abandon();
        let is_found =
            |&at: &usize| self.equations[at].is_used && self.row(at).iter().filter(|&&c| c != 0).count() == 1;
        let at = (0..self.equations.len()).find(is_found)?;
        let Equation { pivot, len, .. } = self.equations[at];
        let key = core::mem::replace(&mut self.keys[usize::from(pivot)], FREE);
        self.found[..len].copy_from_slice(&self.bytes[at * self.len_max..][..len]);
        self.drop_equation(at);
        Some((key, &self.found[..len]))
    }

    fn place(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|&k| k == key && k != FREE)
    }

    fn row(&self, at: usize) -> &[u8] {
        &self.coefficients[at * self.keys.len()..][..self.keys.len()]
    }

    fn row_mut(&mut self, at: usize) -> &mut [u8] {
        let unknowns = self.keys.len();
        &mut self.coefficients[at * unknowns..][..unknowns]
    }

    fn add_shard(&mut self, at: usize, coefficient: u8, shard: &[u8]) {
        let bytes = &mut self.bytes[at * self.len_max..][..self.len_max];
        let rows = Rows { bytes, stride: self.len_max, count: 1 };
        multiply::add(&self.pieces, self.pieces.of(coefficient), shard, rows);
    }

    /// Adds `factor` times equation `from` to equation `to`.
    fn add_equation(&mut self, to: usize, from: usize, factor: u8) {
        if factor == 0 {
            return;
        }
        let unknowns = self.keys.len();
        for place in 0..unknowns {
            let c = self.coefficients[from * unknowns + place];
            self.coefficients[to * unknowns + place] ^= field::product(factor, c);
        }
        let len = self.equations[from].len;
        self.equations[to].len = self.equations[to].len.max(len);
        let (low, high) = self.bytes.split_at_mut(to.max(from) * self.len_max);
        let (source, target) = if to > from {
            (&low[from * self.len_max..][..len], high)
        } else {
            (&high[..len], &mut low[to * self.len_max..])
        };
        let rows = Rows { bytes: &mut target[..self.len_max], stride: self.len_max, count: 1 };
        multiply::add(&self.pieces, self.pieces.of(factor), source, rows);
    }

    /// Gives the equation a pivot, and takes that out of all others. Returns `false` if nothing is unknown in it, and
    /// drops it.
    fn settle(&mut self, at: usize) -> bool {
        let Some(place) = self.row(at).iter().position(|&c| c != 0) else {
            self.drop_equation(at);
            return false;
        };
        self.set_pivot(at, place);
        true
    }

    fn set_pivot(&mut self, at: usize, place: usize) {
        let factor = field::inverse(self.row(at)[place]);
        if factor != 1 {
            self.row_mut(at).iter_mut().for_each(|c| *c = field::product(*c, factor));
            // Times `factor` is plus `factor - 1` times itself; where it is copied first, ISA-L can do it.
            let len = self.equations[at].len;
            let row = &mut self.bytes[at * self.len_max..][..len];
            self.found[..len].copy_from_slice(row);
            let rows = Rows { bytes: row, stride: len, count: 1 };
            multiply::add(&self.pieces, self.pieces.of(factor ^ 1), &self.found[..len], rows);
        }
        self.equations[at].pivot = place as u8;
        for other in 0..self.equations.len() {
            if other != at && self.equations[other].is_used {
                let factor = self.row(other)[place];
                self.add_equation(other, at, factor);
            }
        }
    }

    /// Gives up the lost shard in `place`: the equations that have it are combined to one fewer that do not.
    fn forget(&mut self, place: usize) {
        let has = |&at: &usize| self.equations[at].is_used && self.row(at)[place] != 0;
        if let Some(at) = (0..self.equations.len()).find(has) {
            self.set_pivot(at, place);
            self.drop_equation(at);
        }
        self.sweep();
    }

    fn drop_oldest(&mut self) {
        let oldest = (0..self.keys.len()).min_by_key(|&place| self.keys[place]);
        if let Some(place) = oldest {
            self.forget(place);
        }
    }

    /// Gives up the parity that was begun.
    fn abandon(&mut self) {
        if let Some((at, _)) = self.fresh.take() {
            self.drop_equation(at);
            self.sweep();
        }
    }

    /// Frees the places of shards that are in no equation.
    fn sweep(&mut self) {
        for place in 0..self.keys.len() {
            let is_used = (0..self.equations.len()).any(|at| self.row(at)[place] != 0);
            if !is_used {
                self.keys[place] = FREE;
            }
        }
    }

    fn drop_equation(&mut self, at: usize) {
        let len = self.equations[at].len;
        self.bytes[at * self.len_max..][..len].fill(0);
        self.row_mut(at).fill(0);
        self.equations[at] = Equation { is_used: false, pivot: 0, len: 0 };
    }
}
