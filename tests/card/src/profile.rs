//! What ran: launches, time and warp instructions of each kernel; with `CARD_PROFILE=1` also their classes, sectors and
//! wavefronts. Printed at the end of the process, if `CARD_STATISTICS` or `CARD_PROFILE` is set.

use crate::exec::Worker;
use crate::lower::{Kernel, Space};
use crate::ops::Op;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

#[derive(Default, Clone)]
struct Entry {
    launches: u64,
    blocks: u64,
    time: Duration,
    instructions: u64,
    lanes: u64,
    matrix: u64,
    /// Instructions, transactions, how few would do.
    global: [u64; 3],
    shared: [u64; 3],
    copied: u64,
    barriers: u64,
    control: u64,
}

static TABLE: LazyLock<Mutex<HashMap<String, Entry>>> = LazyLock::new(Default::default);

unsafe extern "C" {
    fn atexit(call: extern "C" fn()) -> i32;
}

pub fn wanted() -> bool {
    std::env::var_os("CARD_PROFILE").is_some()
}

pub fn record(kernel: &Kernel, time: Duration, workers: &[Worker], blocks: u32) {
    let mut table = TABLE.lock().unwrap();
    if table.is_empty() && (wanted() || std::env::var_os("CARD_STATISTICS").is_some()) {
        // SAFETY: the function lives as long as the library, which is never unloaded.
        unsafe { atexit(print) };
    }
    let entry = table.entry(kernel.name.clone()).or_default();
    entry.launches += 1;
    entry.blocks += blocks as u64;
    entry.time += time;
    for worker in workers {
        // A worker that had no part keeps the counts of another kernel.
        if worker.hits.len() != kernel.code.len() || (blocks == 1 && !std::ptr::eq(worker, &workers[0])) {
            continue;
        }
        for (at, &hits) in worker.hits.iter().enumerate() {
            let i = &kernel.code[at];
            entry.instructions += hits;
            entry.lanes += worker.lanes[at];
            match i.op {
                Op::Multiply => entry.matrix += hits,
                Op::Barrier => entry.barriers += hits,
                Op::Branch | Op::Return => entry.control += hits,
                Op::Load | Op::Store | Op::AtomicAdd | Op::AtomicCas | Op::CopyAsync | Op::LoadMatrix => {
                    let matrix = i.op == Op::LoadMatrix;
                    let counts = if matrix || i.space == Space::Shared { &mut entry.shared } else { &mut entry.global };
                    counts[0] += hits;
                    counts[1] += worker.transactions[at];
                    counts[2] += worker.ideal[at];
                    entry.copied += worker.copied[at];
                }
                _ => {}
            }
        }
    }
}

extern "C" fn print() {
    let table = TABLE.lock().unwrap();
    let mut rows: Vec<_> = table.iter().collect();
    rows.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.time));
    let mut sum = Entry::default();
    eprintln!(
        "{:34} {:>8} {:>8} {:>8} {:>11} {:>5} {:>6} {:>10} {:>9} {:>5} {:>5} {:>9} {:>5} {:>5} {:>8} {:>8} {:>9}",
        "kernel",
        "launches",
        "blocks",
        "ms",
        "warp inst",
        "lanes",
        "Minst/s",
        "mma",
        "global",
        "sect",
        "least",
        "shared",
        "wave",
        "least",
        "copied",
        "barrier",
        "control"
    );
    for (_, entry) in &rows {
        sum.launches += entry.launches;
        sum.blocks += entry.blocks;
        sum.time += entry.time;
        sum.instructions += entry.instructions;
        sum.lanes += entry.lanes;
        sum.matrix += entry.matrix;
        sum.barriers += entry.barriers;
        sum.control += entry.control;
        sum.copied += entry.copied;
        for at in 0..3 {
            sum.global[at] += entry.global[at];
            sum.shared[at] += entry.shared[at];
        }
    }
    let total = "all".to_string();
    for (name, e) in rows.into_iter().chain([(&total, &sum)]) {
        let per = |pair: [u64; 3], which: usize| pair[which] as f64 / pair[0].max(1) as f64;
        eprintln!(
            "{name:34} {:8} {:8} {:8.1} {:11} {:5.1} {:6.1} {:10} {:9} {:5.2} {:5.2} {:9} {:5.2} {:5.2} {:8} {:8} {:9}",
            e.launches,
            e.blocks,
            e.time.as_secs_f64() * 1e3,
            e.instructions,
            e.lanes as f64 / e.instructions.max(1) as f64,
            e.instructions as f64 / e.time.as_secs_f64() / 1e6,
            e.matrix,
            e.global[0],
            per(e.global, 1),
            per(e.global, 2),
            e.shared[0],
            per(e.shared, 1),
            per(e.shared, 2),
            e.copied,
            e.barriers,
            e.control
        );
    }
}
