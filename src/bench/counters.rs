//! Counts per launch, taken on the software GPU (`tests/card`, `CARD_REPORT`), and from them an estimate of the
//! time on a real GPU. It is not a measurement.

use super::card::NamedCard;
use crate::backend::gpu::Launch;
use crate::files::{MOST_RECORDS, read_text};
use crate::input_error;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Floating-point operations per `mma.m16n8k16`.
const MATRIX_FLOPS: f64 = 2.0 * 16.0 * 8.0 * 16.0;
/// Bytes per sector of device memory.
const SECTOR: f64 = 32.0;
/// Warp instructions that a multiprocessor issues per clock.
const ISSUED: f64 = 4.0;

/// Counts over all launches of a kernel with these extents.
#[derive(Clone, Debug, Deserialize)]
struct Counted {
    kernel: String,
    grid: [u32; 3],
    block: [u32; 3],
    launches: u64,
    /// Warp instructions by class.
    instructions: BTreeMap<String, u64>,
    /// Warp instructions that access device memory, the sectors they touch, and the fewest sectors that hold the same bytes.
    accesses: u64,
    sectors: u64,
    least_sectors: u64,
    /// The same for shared memory in wavefronts, except those of asynchronous copies to it.
    shared_accesses: u64,
    wavefronts: u64,
    least_wavefronts: u64,
    copied_wavefronts: u64,
}

/// Counts per launch, averaged over the counted launches.
#[derive(Clone, Debug, Serialize)]
pub struct PerLaunch {
    /// PTX warp instructions by class.
    pub instructions: BTreeMap<String, f64>,
    /// Sectors of 32 bytes per warp instruction that accesses device memory, and the fewest that hold the same bytes.
    pub sectors_per_access: f64,
    pub least_sectors_per_access: f64,
    /// Wavefronts per warp instruction that accesses shared memory, and how many there would be without bank conflicts.
    pub wavefronts_per_access: f64,
    pub least_wavefronts_per_access: f64,
    /// Estimated seconds, and what limits them.
    pub estimate: f64,
    pub bound: &'static str,
}

/// The report of a run on the software GPU.
#[derive(Clone, Debug, Deserialize)]
pub struct Counters {
    launches: Vec<Counted>,
}

impl Counters {
    /// Reads a file written through `CARD_REPORT`.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if it cannot be read or is not such a report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path, MOST_RECORDS)?;
        serde_json::from_str(&text).map_err(|error| {
            input_error!("{} is not a CARD_REPORT file ({error}); see tests/card/README.md", path.display())
        })
    }

    /// Counts per launch on `card` when it runs `waves` times as many blocks as the card holds; `None` if no launch with these
    /// extents was counted.
    pub fn of(&self, card: NamedCard, kernel: &str, launch: &Launch, waves: f64) -> Option<PerLaunch> {
        let same = |c: &&Counted| c.kernel == kernel && c.grid == launch.grid && c.block == [launch.threads, 1, 1];
        let counted = self.launches.iter().find(same).filter(|counted| counted.launches > 0)?;
        let each = |count: u64| count as f64 / counted.launches as f64;
        let per = |count: u64, accesses: u64| count as f64 / accesses.max(1) as f64;
        let instructions: BTreeMap<_, _> = counted.instructions.iter().map(|(k, &n)| (k.clone(), each(n))).collect();
        let rates = card.rates();
        let all: f64 = instructions.values().sum();
        let wavefronts = each(counted.wavefronts + counted.copied_wavefronts);
        // The last wave takes as long as a full one.
        let tail = waves.ceil() / waves;
        let times = [
            ("issue", tail * all / (ISSUED * rates.multiprocessors * rates.clock)),
            ("matrix", tail * instructions.get("matrix").unwrap_or(&0.0) * MATRIX_FLOPS / rates.products),
            ("shared memory", tail * wavefronts / (rates.multiprocessors * rates.clock)),
            ("device memory", each(counted.sectors) * SECTOR / rates.memory),
        ];
        let (bound, estimate) = times.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(PerLaunch {
            instructions,
            sectors_per_access: per(counted.sectors, counted.accesses),
            least_sectors_per_access: per(counted.least_sectors, counted.accesses),
            wavefronts_per_access: per(counted.wavefronts, counted.shared_accesses),
            least_wavefronts_per_access: per(counted.least_wavefronts, counted.shared_accesses),
            estimate,
            bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;

    #[test]
    fn the_slowest_part_of_a_launch_is_its_estimate() {
        let report = |classes: &str, sectors: u64, wavefronts: u64| {
            let text = format!(
                r#"{{"launches": [{{"kernel": "k", "grid": [132, 1, 1], "block": [256, 1, 1], "launches": 2,
                "instructions": {classes}, "accesses": 4, "sectors": {sectors}, "least_sectors": 4, "shared_accesses": 8,
                "wavefronts": {wavefronts}, "least_wavefronts": 8, "copied_wavefronts": 0, "more": 1}}], "executed": []}}"#
            );
            serde_json::from_str::<Counters>(&text).unwrap()
        };
        let launch = Launch { grid: [132, 1, 1], threads: 256, shared: 0 };
        let of = |counters: Counters| counters.of(NamedCard::H200, "k", &launch, 0.5).unwrap();
        let rates = NamedCard::H200.rates();
        let issue = of(report(r#"{"integer": 4000000, "float": 4000000}"#, 8, 16));
        assert_eq!((issue.bound, issue.instructions["float"], issue.sectors_per_access), ("issue", 2e6, 2.0));
        assert!((issue.estimate - 2.0 * 4e6 / (4.0 * 132.0 * rates.clock)).abs() < 1e-12);
        assert_eq!(issue.wavefronts_per_access, 2.0);
        let matrix = of(report(r#"{"matrix": 2000000}"#, 8, 16));
        assert_eq!(matrix.bound, "matrix");
        assert!((matrix.estimate - 2.0 * 1e6 * 4096.0 / rates.products).abs() < 1e-12);
        assert_eq!(of(report("{}", 1 << 20, 16)).bound, "device memory");
        assert_eq!(of(report("{}", 8, 1 << 20)).bound, "shared memory");
        let other = Launch { grid: [131, 1, 1], ..launch };
        assert!(report("{}", 8, 16).of(NamedCard::H200, "k", &other, 1.0).is_none());
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("no.json");
        std::fs::write(&path, "{}").unwrap();
        assert!(Counters::read(&path).unwrap_err().is::<InputError>());
    }
}
