//! Execution statistics by kernel and extents: launches, warp instructions by class, sectors of device memory, wavefronts of
//! shared memory, and which instructions were executed at all. Written as JSON when the process ends, to the file named by
//! `CARD_REPORT`.

use crate::exec::Worker;
use crate::lower::{Kernel, Space};
use crate::ops::Op;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Instruction classes, in the order of the counts.
const CLASSES: [&str; 8] = ["matrix", "float", "integer", "convert", "global", "shared", "control", "move"];

fn class(op: Op, space: Space) -> usize {
    let name = format!("{op:?}");
    let arithmetic = ["Add", "Sub", "Mul", "Div", "Fma", "Rcp", "Sqrt", "Neg", "Abs", "Min", "Max"];
    match op {
        Op::Multiply => 0,
        Op::LoadMatrix => 5,
        // These count as global accesses; their shared-memory wavefronts are counted separately.
        Op::CopyAsync => 4,
        Op::Load | Op::Store | Op::AtomicAdd | Op::AtomicCas => {
            if space == Space::Shared {
                5
            } else {
                4
            }
        }
        Op::Branch | Op::Return | Op::Barrier | Op::WarpBarrier | Op::Commit | Op::WaitGroup => 6,
        _ if name.starts_with("Cvt_") => 3,
        _ if name.contains("f32") || name.contains("f64") => match arithmetic.iter().any(|a| name.starts_with(a)) {
            true => 1,
            false => 2, // comparisons
        },
        Op::LoadParameter | Op::Special | Op::Pack | Op::Unpack | Op::Shuffle | Op::Ballot | Op::Match => 7,
        _ if name.starts_with("Mov") || name.starts_with("Cvta") || name.starts_with("Sel") => 7,
        _ => 2,
    }
}

#[derive(Default)]
struct Entry {
    launches: u64,
    time: Duration,
    lanes: u64,
    classes: [u64; CLASSES.len()],
    /// Instructions, transactions, minimum transactions.
    global: [u64; 3],
    shared: [u64; 3],
    /// Wavefronts of asynchronous copies to shared memory.
    copied: u64,
}

/// For each kernel, how often each instruction was executed, and its source location.
type Executed = BTreeMap<String, Vec<(u64, String)>>;

#[derive(Default)]
struct Report {
    launches: BTreeMap<(String, [u32; 3], [u32; 3]), Entry>,
    executed: Executed,
}

static REPORT: LazyLock<Mutex<Report>> = LazyLock::new(|| {
    // SAFETY: the function lives as long as the library, which is never unloaded.
    unsafe { atexit(write) };
    Mutex::default()
});

unsafe extern "C" {
    fn atexit(call: extern "C" fn()) -> i32;
}

fn report() -> MutexGuard<'static, Report> {
    REPORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether transactions of accesses are counted.
pub fn wanted() -> bool {
    std::env::var_os("CARD_REPORT").is_some()
}

pub fn record(kernel: &Kernel, grid: [u32; 3], block: [u32; 3], time: Duration, workers: &[Worker]) {
    if !wanted() {
        return;
    }
    let mut report = report();
    let Report { launches, executed } = &mut *report;
    let executed = executed
        .entry(kernel.name.clone())
        .or_insert_with(|| (0..kernel.code.len()).map(|at| (0, kernel.place(at))).collect());
    let entry = launches.entry((kernel.name.clone(), grid, block)).or_default();
    entry.launches += 1;
    entry.time += time;
    let blocks: u64 = grid.iter().map(|&extent| extent as u64).product();
    // If there is only one block, the first worker ran it.
    let took_part = if blocks == 1 { &workers[..1] } else { workers };
    for worker in took_part.iter().filter(|worker| worker.hits.len() == kernel.code.len()) {
        for (at, &hits) in worker.hits.iter().enumerate().filter(|(_, hits)| **hits > 0) {
            let i = &kernel.code[at];
            executed[at].0 += hits;
            entry.lanes += worker.lanes[at];
            let class = class(i.op, i.space);
            entry.classes[class] += hits;
            let counts = match CLASSES[class] {
                "global" => &mut entry.global,
                "shared" => &mut entry.shared,
                _ => continue,
            };
            counts[0] += hits;
            counts[1] += worker.transactions[at];
            counts[2] += worker.ideal[at];
            entry.copied += worker.copied[at];
        }
    }
}

fn text(report: &Report) -> String {
    let list = |items: Vec<String>| items.join(",\n");
    let launches = report.launches.iter().map(|((kernel, grid, block), entry)| {
        let classes: Vec<_> =
            CLASSES.iter().zip(entry.classes).map(|(name, count)| format!("\"{name}\": {count}")).collect();
        let Entry { launches, time, lanes, global, shared, copied, .. } = entry;
        format!(
            "    {{\"kernel\": \"{kernel}\", \"grid\": {grid:?}, \"block\": {block:?}, \"launches\": {launches}, \
             \"seconds\": {:.6}, \"lanes\": {lanes}, \"instructions\": {{{}}}, \"accesses\": {}, \"sectors\": {}, \
             \"least_sectors\": {}, \"shared_accesses\": {}, \"wavefronts\": {}, \"least_wavefronts\": {}, \
             \"copied_wavefronts\": {copied}}}",
            time.as_secs_f64(),
            classes.join(", "),
            global[0],
            global[1],
            global[2],
            shared[0],
            shared[1],
            shared[2],
        )
    });
    let executed = report.executed.iter().map(|(kernel, places)| {
        let left: Vec<_> =
            places.iter().filter(|(hits, _)| *hits == 0).map(|(_, place)| format!("{place:?}")).collect();
        format!("    {{\"kernel\": \"{kernel}\", \"instructions\": {}, \"left\": [{}]}}", places.len(), left.join(", "))
    });
    format!(
        "{{\n  \"launches\": [\n{}\n  ],\n  \"executed\": [\n{}\n  ]\n}}\n",
        list(launches.collect()),
        list(executed.collect())
    )
}

extern "C" fn write() {
    let Some(path) = std::env::var_os("CARD_REPORT") else { return };
    if let Err(error) = std::fs::write(&path, text(&report())) {
        eprintln!("card: {} cannot be written: {error}", path.display());
    }
}
