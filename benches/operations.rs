//! `cargo bench`: checks and measures every operation in every variant at the shapes of the presets. Criterion stores the
//! figures in target/criterion and compares them with those of the previous run.
//!
//!     cargo bench -- conv_lif_forward           one operation
//!     ADALI_BENCH_DEVICE=cuda cargo bench       on the first NVIDIA GPU instead of the CPU

use adali::backend::Backend;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::{Gpu, Precision};
use adali::bench::measure::{COPIES, Copies};
use adali::bench::operation::Operation;
use adali::bench::shape::{LAYERS, LayerShape};
use anyhow::Result;
use criterion::{BenchmarkId, Criterion};
use std::cell::{LazyCell, RefCell};
use std::time::Duration;

/// Samples per shape on the CPU, and share of neuron-steps that spike.
const CPU_BATCH: usize = 8;
const FIRING_RATE: f64 = 0.1;
/// Large enough to find out whether a device has an operation.
const SMALL: LayerShape = LayerShape::conv(2, 2, 32, 4, 32);

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    match std::env::var("ADALI_BENCH_DEVICE").as_deref() {
        Ok("cuda") => {
            let cuda = Cuda::open(0)?;
            let (card, title) = (cuda.card(), cuda.name().to_string());
            measure(&mut criterion, &Gpu::new(cuda, card, Precision::Bf16, title, true), None)?;
        }
        _ => measure(&mut criterion, &Cpu, Some(CPU_BATCH))?,
    }
    criterion.final_summary();
    Ok(())
}

fn measure<B: Backend>(criterion: &mut Criterion, backend: &B, batch: Option<usize>) -> Result<()> {
    let mut names: Vec<_> = Operation::all().into_iter().map(Operation::name).collect();
    names.dedup();
    names.into_iter().try_for_each(|name| variants(criterion, backend, name, batch))
}

/// Measures an operation's variants; tensors are drawn and results checked only if criterion requests the figure.
fn variants<B: Backend>(criterion: &mut Criterion, backend: &B, name: &str, batch: Option<usize>) -> Result<()> {
    let operations: Vec<_> = Operation::all().into_iter().filter(|operation| operation.name() == name).collect();
    if Copies::new(backend, SMALL, &operations, FIRING_RATE, 1)?.ready(operations[0])?.is_none() {
        println!("{name} is not an operation of this device");
        return Ok(());
    }
    let mut group = criterion.benchmark_group(name);
    for mut shape in LAYERS.into_iter().take(3) {
        shape.span.batch = batch.unwrap_or(shape.span.batch);
        for &operation in &operations {
            let id = match operation.variant() {
                variant if variant.is_empty() => BenchmarkId::from_parameter(shape),
                variant => BenchmarkId::new(variant, shape),
            };
            let measured = LazyCell::new(|| -> Result<_> {
                let mut copies = Copies::new(backend, shape, &operations, FIRING_RATE, COPIES)?;
                let ready = copies.ready(operation)?.expect("an operation of this device");
                Ok(RefCell::new((copies, ready)))
            });
            group.bench_function(id, |bencher| {
                let mut measured = measured.as_ref().unwrap_or_else(|error| panic!("{error:#}")).borrow_mut();
                let (copies, ready) = &mut *measured;
                bencher
                    .iter_custom(|calls| Duration::from_secs_f64(copies.seconds(ready, calls).expect("it ran before")));
            });
        }
    }
    group.finish();
    Ok(())
}
