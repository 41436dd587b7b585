//! Which work is before which: a vector clock for each stream, event and the host, of how much of each stream is done.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, RwLock};

/// How many works of each stream are known to be done.
#[derive(Clone, Default, Debug)]
pub struct Clock(HashMap<u64, u64>);

impl Clock {
    pub fn join(&mut self, other: &Clock) {
        for (&stream, &count) in &other.0 {
            let known = self.0.entry(stream).or_default();
            *known = (*known).max(count);
        }
    }

    fn knows(&self, stream: u64, count: u64) -> bool {
        self.0.get(&stream).is_some_and(|&known| known >= count)
    }
}

/// A launch, copy or clear: its stream, its place there, and what is done before it begins.
struct Run {
    stream: u64,
    count: u64,
    before: Clock,
}

/// The first is none.
static RUNS: LazyLock<RwLock<Vec<Run>>> =
    LazyLock::new(|| RwLock::new(vec![Run { stream: u64::MAX, count: 0, before: Clock::default() }]));
/// The last pair that was found in order.
static LAST: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
pub struct Clocks {
    streams: HashMap<u64, Clock>,
    host: Clock,
}

static CLOCKS: LazyLock<Mutex<Clocks>> = LazyLock::new(Mutex::default);

pub fn clocks() -> MutexGuard<'static, Clocks> {
    CLOCKS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Clocks {
    /// Work that is given to a stream: a number for it.
    pub fn begin(&mut self, stream: u64) -> u32 {
        let clock = self.streams.entry(stream).or_default();
        clock.join(&self.host);
        let before = clock.clone();
        let count = clock.0.entry(stream).or_default();
        *count += 1;
        let run = Run { stream, count: *count, before };
        let mut runs = RUNS.write().unwrap();
        runs.push(run);
        runs.len() as u32 - 1
    }

    /// What a stream is behind, for an event.
    pub fn of(&self, stream: u64) -> Clock {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// The stream waits for what an event is behind.
    pub fn wait(&mut self, stream: u64, event: &Clock) {
        self.streams.entry(stream).or_default().join(event);
    }

    /// The host has waited for that.
    pub fn host_waits(&mut self, clock: &Clock) {
        self.host.join(clock);
    }

    /// The host has waited for all.
    pub fn host_waits_for_all(&mut self) {
        for clock in self.streams.values() {
            self.host.join(clock);
        }
    }
}

/// Whether `first` is done before `second` begins, by streams, events and the host's waiting.
pub fn before(first: u32, second: u32) -> bool {
    let pair = (first as u64) << 32 | second as u64;
    if LAST.load(Ordering::Relaxed) == pair {
        return true;
    }
    let runs = RUNS.read().unwrap();
    let (Some(first), Some(second)) = (runs.get(first as usize), runs.get(second as usize)) else { return true };
    let known = second.before.knows(first.stream, first.count);
    if known {
        LAST.store(pair, Ordering::Relaxed);
    }
    known
}
