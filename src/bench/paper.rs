//! The cost of operations on a GPU that is not present: from the launches that the host would make, the compiler's report
//! on the kernels, and the GPU's data sheet. It is a plan, not a measurement.

use super::card::NamedCard;
use super::ceilings::Ceilings;
use super::counters::{Counters, PerLaunch};
use super::operation::Operation;
use super::report::figure;
use super::shape::LayerShape;
use super::table::Table;
use super::tensors::{Layer, Shifts};
use crate::backend::gpu::cuda::Cuda;
use crate::backend::gpu::{Gpu, Launch, Precision};
use crate::kernels::sass::{Class, Loop, main_loops};
use crate::kernels::{MODULES, Multiprocessor, Resources};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;

/// A planned launch.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedLaunch {
    pub kernel: String,
    pub blocks: u64,
    pub threads: u32,
    /// Dynamic shared memory in bytes per block.
    pub shared: u32,
    pub registers: u32,
    /// Warps held by a multiprocessor, as a share of its maximum.
    pub occupancy: f64,
    /// Blocks, in units of the number that the whole GPU holds at a time.
    pub waves: f64,
    /// Instructions in the main loop, and how many of them multiply matrices, if cuobjdump is available.
    pub instructions: Option<u32>,
    pub matrix: Option<u32>,
    /// Counts of such a launch, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<PerLaunch>,
}

/// A planned operation.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    pub operation: String,
    pub variant: String,
    pub shape: String,
    pub bytes: f64,
    pub flops: f64,
    /// Seconds at the data sheet's rates.
    pub floor: f64,
    pub memory_bound: bool,
    pub launches: Vec<PlannedLaunch>,
}

/// One row per counted launch: thousands of warp instructions by class, accesses, the estimate.
pub fn counter_table(plans: &[Planned]) -> Table {
    let classes = ["matrix", "float", "integer", "convert", "global", "shared", "control", "move"];
    let accesses = ["sectors", "least", "wavefronts", "least"];
    let head: Vec<_> =
        ["kernel"].into_iter().chain(classes).chain(accesses).chain(["estimate µs", "bound by"]).collect();
    let mut table = Table::new(&head);
    for launch in plans.iter().flat_map(|plan| &plan.launches) {
        let Some(counted) = &launch.counted else { continue };
        let of_class = |class: &&str| figure(counted.instructions.get(*class).unwrap_or(&0.0) / 1e3);
        let per_access = [
            counted.sectors_per_access,
            counted.least_sectors_per_access,
            counted.wavefronts_per_access,
            counted.least_wavefronts_per_access,
        ];
        let row = std::iter::once(launch.kernel.clone()).chain(classes.iter().map(of_class));
        let row = row.chain(per_access.map(|count| format!("{count:.2}")));
        table.row(row.chain([figure(1e6 * counted.estimate), counted.bound.into()]));
    }
    table
}

/// The number of counted launches in the plans, and of all launches.
pub fn counted(plans: &[Planned]) -> (usize, usize) {
    let launches = plans.iter().flat_map(|plan| &plan.launches);
    (launches.clone().filter(|launch| launch.counted.is_some()).count(), launches.count())
}

/// Plans for a GPU.
pub struct Paper {
    card: NamedCard,
    gpu: Gpu<Cuda>,
    ceilings: Ceilings,
    /// By module name; `None` if there is no cuobjdump.
    loops: Option<BTreeMap<String, BTreeMap<String, Loop>>>,
    counters: Option<Counters>,
}

impl Paper {
    /// Plans for a GPU with values stored in `precision`, with estimates if `counters` has such launches.
    ///
    /// # Errors
    /// If the program has no kernels.
    pub fn new(card: NamedCard, precision: Precision, counters: Option<Counters>) -> Result<Self> {
        if MODULES.is_empty() {
            bail!("cannot plan for a card: {}", crate::kernels::ADVICE);
        }
        let name = format!("{} on paper", card.name());
        Ok(Self {
            card,
            gpu: Gpu::on_paper(card.card(), precision, name),
            ceilings: card.ceilings(precision),
            loops: Some(BTreeMap::new()),
            counters,
        })
    }

    /// Whether machine code can be examined.
    pub fn reads_code(&self) -> bool {
        self.loops.is_some()
    }

    /// Plans the operations of one shape that this GPU has.
    pub fn plan(&mut self, shape: LayerShape, operations: &[Operation], rate: f64) -> Result<Vec<Planned>> {
        let mut layer = Layer::new(&self.gpu, shape, &Operation::parts(operations), rate, Some(Shifts::default()), 0)?;
        let mut plans = Vec::new();
        for &operation in operations {
            let before = self.gpu.rehearsed().launches.len();
            if !operation.run(&self.gpu, &mut layer)? {
                continue;
            }
            let launches = self.gpu.rehearsed().launches.split_off(before);
            let work = operation.work(&self.gpu, &layer);
            let (floor, memory_bound) = self.ceilings.floor(work);
            plans.push(Planned {
                operation: operation.name().into(),
                variant: operation.variant(),
                shape: shape.to_string(),
                bytes: work.bytes,
                flops: work.flops,
                floor,
                memory_bound,
                launches: launches.iter().filter_map(|(kernel, launch)| self.launch(kernel, launch)).collect(),
            });
        }
        Ok(plans)
    }

    fn launch(&mut self, kernel: &str, launch: &Launch) -> Option<PlannedLaunch> {
        let resources = self.card.resources(kernel)?;
        let multiprocessor = Multiprocessor::of(self.card.data().0)?;
        let shared = resources.shared + launch.shared;
        let occupancy = multiprocessor.occupancy(launch.threads, resources.registers, shared);
        let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
        let held = u64::from(occupancy.blocks) * self.card.card().multiprocessors as u64;
        let main = self.main_loop(resources);
        let waves = blocks as f64 / held as f64;
        let counted = self.counters.as_ref().and_then(|counters| counters.of(self.card, kernel, launch, waves));
        Some(PlannedLaunch {
            kernel: kernel.into(),
            blocks,
            threads: launch.threads,
            shared: launch.shared,
            registers: resources.registers,
            occupancy: occupancy.fraction(),
            waves,
            instructions: main.as_ref().map(Loop::instructions),
            matrix: main.as_ref().map(|main| main.count(Class::Matrix)),
            counted,
        })
    }

    fn main_loop(&mut self, resources: &Resources) -> Option<Loop> {
        let loops = self.loops.as_mut()?;
        if !loops.contains_key(resources.module) {
            let module = MODULES.iter().find(|module| module.name == resources.module)?;
            match main_loops(module, resources.arch) {
                Ok(found) => drop(loops.insert(resources.module.into(), found)),
                Err(_) => {
                    self.loops = None;
                    return None;
                }
            }
        }
        self.loops.as_ref()?[resources.module].get(resources.kernel).cloned()
    }
}

/// Plans of one shape: a row per operation, with its first kernel, and one for each further kernel.
pub fn table(plans: &[Planned]) -> Table {
    let mut table = Table::new(&[
        "operation",
        "MB",
        "GFLOP",
        "floor µs",
        "by",
        "kernel",
        "blocks",
        "waves",
        "registers",
        "occupancy %",
        "loop",
        "matrix",
    ]);
    for plan in plans {
        let name = [plan.operation.as_str(), plan.variant.as_str()].join(" ");
        let flops = if plan.flops > 0.0 { figure(plan.flops / 1e9) } else { "–".into() };
        let by = if plan.memory_bound { "memory" } else { "products" };
        let first = [name.trim_end().into(), figure(plan.bytes / 1e6), flops, figure(1e6 * plan.floor), by.into()];
        let rows = std::iter::once(first).chain(std::iter::repeat([const { String::new() }; 5]));
        for (cells, launch) in rows.zip(&plan.launches) {
            let count = |count: Option<u32>| count.map_or("–".into(), |count| count.to_string());
            let of_kernel = [
                launch.kernel.clone(),
                launch.blocks.to_string(),
                figure(launch.waves),
                launch.registers.to_string(),
                format!("{:.0}", 100.0 * launch.occupancy),
                count(launch.instructions),
                count(launch.matrix),
            ];
            table.row(cells.into_iter().chain(of_kernel));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::REPORT;
    use clap::ValueEnum;

    #[test]
    fn a_card_runs_code_of_its_generation() {
        for card in NamedCard::value_variants() {
            let (own, ..) = card.data();
            assert!(Multiprocessor::of(own).is_some());
            for kernel in REPORT {
                let found = card.resources(kernel.kernel);
                assert!(found.is_none_or(|r| r.arch[..1] == own[..1] && r.arch <= own), "{own}");
            }
        }
    }

    #[test]
    fn every_operation_has_its_launches() {
        if MODULES.is_empty() {
            assert!(Paper::new(NamedCard::H100, Precision::Bf16, None).is_err());
            return;
        }
        let mut paper = Paper::new(NamedCard::H100, Precision::Bf16, None).unwrap();
        let shape: LayerShape = "T=4,N=64,C=64,H=32".parse().unwrap();
        let plans = paper.plan(shape, &Operation::all(), 0.1).unwrap();
        assert_eq!(plans.len(), Operation::all().len());
        for plan in &plans {
            assert!(!plan.launches.is_empty() && plan.floor > 0.0, "{plan:?}");
            assert!(plan.launches.iter().all(|l| l.registers > 0 && l.waves > 0.0 && l.occupancy > 0.0), "{plan:?}");
        }
        // 2 x 64 x 4 x 32 x 32 x 64 x 64 x 9 operations at 989 TFLOP/s.
        let forward = plans.iter().find(|plan| plan.operation == "conv_lif_forward").unwrap();
        assert!((forward.floor * 1e6 - 19.54).abs() < 0.01 && !forward.memory_bound, "{forward:?}");
        assert!(table(&plans).plain().contains("conv_lif_forward_t4_bf16"));
    }
}
