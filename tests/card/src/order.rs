//! The order of a device's work: a vector clock for each stream, each event and the host, counting how much of each stream is
//! done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// How many work items of each stream are known to be done; streams are numbered from 0.
#[derive(Clone, Default, Debug)]
pub struct Clock(Vec<u64>);

impl Clock {
    fn of(&mut self, stream: usize) -> &mut u64 {
        if self.0.len() <= stream {
            self.0.resize(stream + 1, 0);
        }
        &mut self.0[stream]
    }

    fn join(&mut self, other: &Clock) {
        for (stream, &count) in other.0.iter().enumerate() {
            let known = self.of(stream);
            *known = count.max(*known);
        }
    }

    fn knows(&self, stream: usize, count: u64) -> bool {
        self.0.get(stream).is_some_and(|&known| known >= count)
    }
}

/// A launch, copy or clear: its stream, its position there, and what is done before it starts.
struct Run {
    stream: usize,
    count: u64,
    before: Clock,
}

#[derive(Default)]
struct Clocks {
    streams: Vec<Clock>,
    host: Clock,
}

impl Clocks {
    fn stream(&mut self, stream: usize) -> &mut Clock {
        if self.streams.len() <= stream {
            self.streams.resize(stream + 1, Clock::default());
        }
        &mut self.streams[stream]
    }
}

/// The order of a device's work items, which are numbered from 1.
#[derive(Default)]
pub struct Order {
    runs: RwLock<Vec<Run>>,
    /// The last pair found to be in order.
    last: AtomicU64,
    clocks: Mutex<Clocks>,
}

impl Order {
    /// Clears everything.
    pub fn clear(&self) {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.last.store(0, Ordering::Relaxed);
        self.with(|clocks| *clocks = Clocks::default());
    }

    fn with<T>(&self, work: impl FnOnce(&mut Clocks) -> T) -> T {
        work(&mut self.clocks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers new work on a stream; returns its number.
    pub fn begin(&self, stream: usize) -> u32 {
        let run = self.with(|clocks| {
            let host = clocks.host.clone();
            let clock = clocks.stream(stream);
            clock.join(&host);
            let before = clock.clone();
            *clock.of(stream) += 1;
            Run { stream, count: *clock.of(stream), before }
        });
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        runs.push(run);
        runs.len() as u32
    }

    /// What the stream's work so far comes after, for an event.
    pub fn of(&self, stream: usize) -> Clock {
        self.with(|clocks| clocks.stream(stream).clone())
    }

    /// The stream waits for the event's clock.
    pub fn wait(&self, stream: usize, event: &Clock) {
        self.with(|clocks| clocks.stream(stream).join(event));
    }

    /// The host has waited for this clock.
    pub fn host_waits(&self, clock: &Clock) {
        self.with(|clocks| clocks.host.join(clock));
    }

    /// The host has waited for everything.
    pub fn host_waits_for_all(&self) {
        self.with(|Clocks { streams, host }| streams.iter().for_each(|clock| host.join(clock)));
    }

    /// Whether streams, events and host waits ensure that `first` is done before `second` starts.
    pub fn before(&self, first: u32, second: u32) -> bool {
        let pair = (first as u64) << 32 | second as u64;
        if self.last.load(Ordering::Relaxed) == pair {
            return true;
        }
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let run = |number: u32| runs.get((number as usize).wrapping_sub(1));
        let (Some(first), Some(second)) = (run(first), run(second)) else { return true };
        let known = second.before.knows(first.stream, first.count);
        if known {
            self.last.store(pair, Ordering::Relaxed);
        }
        known
    }
}
