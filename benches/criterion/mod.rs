//! What the benches of all operations share. Each runs its operation in every variant, first checked, at the shapes of
//! the presets; criterion keeps the figures in target/criterion and compares them with the last.
//!
//! On the CPU; ADALI_BENCH_DEVICE=cuda measures on the first card.

use adali::backend::Backend;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::{Gpu, Precision};
use adali::bench::measure::{COPIES, Copies};
use adali::bench::operation::Operation;
use adali::bench::shape::LAYERS;
use anyhow::Result;
use criterion::{BenchmarkId, Criterion, Throughput};
use std::time::Duration;

/// Samples of the shapes on the CPU, and share of neuron-steps that spike.
const CPU_BATCH: usize = 8;
const FIRING_RATE: f64 = 0.1;

/// Measures all variants of an operation, as the command line of `cargo bench` asks.
pub fn bench(name: &str) -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    match std::env::var("ADALI_BENCH_DEVICE").as_deref() {
        Ok("cuda") => {
            let cuda = Cuda::open(0)?;
            let (card, title) = (cuda.card(), cuda.name().to_string());
            variants(&mut criterion, &Gpu::new(cuda, card, Precision::Bf16, title, true), name, None)?;
        }
        _ => variants(&mut criterion, &Cpu, name, Some(CPU_BATCH))?,
    }
    criterion.final_summary();
    Ok(())
}

fn variants<B: Backend>(criterion: &mut Criterion, backend: &B, name: &str, batch: Option<usize>) -> Result<()> {
    let operations: Vec<_> = Operation::all().into_iter().filter(|operation| operation.name() == name).collect();
    let mut group = criterion.benchmark_group(name);
    for mut shape in LAYERS.into_iter().take(3) {
        shape.span.batch = batch.unwrap_or(shape.span.batch);
        let mut copies = Copies::new(backend, shape, &operations, FIRING_RATE, COPIES)?;
        for &operation in &operations {
            let Some(mut ready) = copies.ready(operation)? else {
                println!("{name} is not an operation of this device");
                return Ok(());
            };
            group.throughput(Throughput::Bytes(copies.work(operation).bytes as u64));
            let id = match operation.variant() {
                variant if variant.is_empty() => BenchmarkId::from_parameter(shape),
                variant => BenchmarkId::new(variant, shape),
            };
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|calls| {
                    let seconds = copies.seconds(&mut ready, calls).expect("it ran before");
                    Duration::from_secs_f64(seconds)
                });
            });
        }
    }
    group.finish();
    Ok(())
}
