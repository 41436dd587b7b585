//! Signals that ask the program to stop.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set once the user or the system asks the process to stop.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// `timeout` and other wrappers send the same signal twice at once; a person takes longer.
const TWICE: Duration = Duration::from_millis(400);

/// From now on Ctrl-C, SIGTERM and closing the terminal set [`STOP`]; before, they end the process. A second Ctrl-C
/// ends it at once. Processes started with `nohup` ignore a closed terminal.
pub fn watch() -> Result<&'static AtomicBool> {
    let watched: Vec<_> = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&s| s != SIGHUP || !ignored(s)).collect();
    let mut signals = Signals::new(watched).context("cannot watch for Ctrl-C")?;
    let watcher = std::thread::Builder::new().name("signals".into());
    let watcher = watcher.spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            if signal == SIGINT && first.is_some_and(|first| first.elapsed() > TWICE) {
                std::process::exit(130);
            }
            first.get_or_insert_with(Instant::now);
            STOP.store(true, Ordering::Relaxed);
        }
    });
    watcher.context("cannot start the thread that watches for Ctrl-C")?;
    Ok(&STOP)
}

/// Whether the process was started with this signal ignored, as far as the system tells.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
