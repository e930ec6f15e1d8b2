//! `ledger`: the allocator's book alone, in this process, without a server.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use poolutil::{Answer, IpPoolSpec, Mark, Pool, Span, Want};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::latency::ratio;
use crate::progress::bar;
use crate::report::Row;

const HELD: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const POOLS: [(&str, u8); 2] = [("10.0.0.0/8", 8), ("fd00::/64", 64)];
/// Addresses released, and then given out again, in one go. Each go is timed as a whole, and the middle one counts:
/// on a shared machine some are interrupted.
const BURST: usize = 500;
const BURSTS: usize = 100;

/// What the ledger costs beside so many held addresses.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// The pool.
    pub pool: &'static str,
    /// Addresses held.
    pub held: u32,
    /// Reserving the lowest free address.
    pub reserve_ns: f64,
    /// Noting the object that holds it.
    pub observe_ns: f64,
    /// Releasing some address.
    pub release_ns: f64,
    /// Memory of this process per held address; pages are too coarse for few.
    pub bytes_per_address: Option<f64>,
}

impl Row for Ledger {
    const TITLE: &'static str = "ledger: in process, without a server";
    const COLUMNS: &'static [&'static str] = &["pool", "held", "reserve ns", "observe ns", "release ns", "B/address"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.pool.to_owned(), self.held.to_string()];
        let figures = [Some(self.reserve_ns), Some(self.observe_ns), Some(self.release_ns), self.bytes_per_address];
        cells.extend(figures.map(|figure| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"))));
        cells
    }
}

/// Every size in every pool.
pub fn measure() -> Result<Vec<Ledger>> {
    let bar = bar("ledger", POOLS.len() * HELD.len());
    let mut figures = Vec::new();
    // Kept to the end: memory that one gave back would hide what the next one takes.
    let mut books = Vec::new();
    for (pool, prefix) in POOLS {
        for held in HELD {
            let (book, ledger) = measure_one(pool, prefix, held, BURSTS)?;
            books.push(book);
            figures.push(ledger);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(figures)
}

/// A ledger, and what each key holds.
struct Book {
    ledger: poolutil::Ledger<u32>,
    holds: Vec<Span>,
    marks: u64,
}

impl Book {
    fn reserve(&mut self, key: u32) -> Result<Span> {
        match self.ledger.reserve(key, Want::Lowest) {
            Answer::Granted(span) => Ok(span),
            other => bail!("the ledger answers {other:?}"),
        }
    }

    fn observe(&mut self, key: u32, span: Span) {
        self.marks += 1;
        self.ledger.observe(key, Some(span), Mark::Added(self.marks));
        self.holds[key as usize] = span;
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn measure_one(text: &'static str, prefix: u8, held: u32, bursts: usize) -> Result<(Book, Ledger)> {
    let addresses = [text.to_owned()];
    let pool = Pool::ip(&IpPoolSpec { addresses: &addresses, prefix: prefix.into(), ..IpPoolSpec::default() })?;
    let first = Span::parse_host("::").context("an address")?;
    let mut book = Book { ledger: poolutil::Ledger::new(), holds: vec![first; held as usize], marks: 0 };
    book.ledger.resize(Some(Arc::new(pool)));

    let before = resident()?;
    for key in 0..held {
        let span = book.reserve(key)?;
        book.observe(key, span);
    }
    let bytes = resident()?.saturating_sub(before);

    // The same keys each time, so that figures of two calls compare.
    let mut random = StdRng::seed_from_u64(1);
    let [mut reserve, mut observe, mut release] = [const { Vec::new() }; 3];
    for _ in 0..bursts {
        let mut keys: Vec<u32> = (0..BURST).map(|_| random.random_range(0..held)).collect();
        keys.sort_unstable();
        keys.dedup();
        let each = |begin: Instant| ratio(begin.elapsed().as_nanos() as f64, keys.len() as f64);

        let spans: Vec<Span> = keys.iter().map(|key| book.holds[*key as usize]).collect();
        let begin = Instant::now();
        for (key, span) in keys.iter().zip(&spans) {
            book.ledger.forget(*key, Some(*span));
        }
        release.push(each(begin));

        let begin = Instant::now();
        let spans = keys.iter().map(|key| black_box(book.reserve(*key))).collect::<Result<Vec<_>>>()?;
        reserve.push(each(begin));

        let begin = Instant::now();
        for (key, span) in keys.iter().zip(spans) {
            book.observe(*key, span);
        }
        observe.push(each(begin));
    }
    let ledger = Ledger {
        pool: text,
        held,
        reserve_ns: middle(reserve),
        observe_ns: middle(observe),
        release_ns: middle(release),
        bytes_per_address: (held >= 10_000).then(|| ratio(bytes as f64, held.into())),
    };
    Ok((book, ledger))
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Resident memory of this process.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_ledger_holds_as_many_as_before() {
        for (pool, prefix) in POOLS {
            let (book, figures) = measure_one(pool, prefix, 1000, 3).unwrap();
            assert_eq!(book.ledger.counts().used, 1000);
            assert_eq!(book.ledger.counts().reserved, 0);
            assert!(figures.reserve_ns > 0.0 && figures.release_ns > 0.0);
        }
    }
}
