//! JSON records that the program writes and reads back: a line of metrics, a run's result, an earlier benchmark.
#![no_main]

use adali::bench::report::Report;
use adali::metrics::EpochMetrics;
use adali::train::run::RunResult;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|&byte| byte == b'\n') {
        let _ = serde_json::from_slice::<EpochMetrics>(line);
    }
    let _ = serde_json::from_slice::<RunResult>(bytes);
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        for record in &report.results {
            let _ = report.change(record);
        }
    }
});
