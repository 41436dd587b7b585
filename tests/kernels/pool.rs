//! Pooling of spikes, forward.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::params::PoolForward;
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Extent, Pool, PoolKind, Span, Volume, output_extent};
use adali::backend::{Input, NeuronLayers, Storage};

/// Pools of 5x7 images: adjacent, overlapping, with gaps, beyond the border, over the whole image.
fn pools(kind: PoolKind, channels: usize) -> Vec<Pool> {
    let one = |kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]| {
        let input = Volume { h: 5, w: 7, c: channels };
        let h = output_extent(input.h, kernel[0], stride[0], padding[0]).expect("it fits");
        let w = output_extent(input.w, kernel[1], stride[1], padding[1]).expect("it fits");
        let [kernel, stride, padding] = [kernel, stride, padding].map(|[h, w]| Extent { h, w });
        Pool { kind, input, kernel, stride, padding, output: Volume { h, w, c: channels } }
    };
    vec![
        one([2, 2], [2, 2], [0, 0]),
        one([3, 3], [2, 2], [1, 1]),
        one([3, 2], [1, 3], [1, 0]),
        one([1, 1], [2, 3], [0, 0]),
        one([5, 7], [1, 1], [0, 0]),
        one([4, 5], [3, 1], [2, 2]),
    ]
}

/// What a spike counts for in a mean.
const OF_SPIKE: f32 = 1.25;

/// Few blocks of images, so that each block takes several images.
fn launch(outputs: usize) -> Launch {
    Launch { grid: [outputs.div_ceil(64) as u32, 2, 1], threads: 64, shared: 0 }
}

/// Every pool of every extent, with spikes to pool and the seeds of its orders.
fn each_case(kind: PoolKind, rng: &mut Rng, mut test: impl FnMut(&str, &Pool, &Tensor, Vec<u64>)) {
    for channels in [3, 33, 64] {
        for steps in [1, 2, 3, 4, 7, 8, 16] {
            for pool in pools(kind, channels) {
                let rate = rng.uniform(0.05, 0.95);
                let span = Span { batch: 3, steps };
                let spikes = Tensor::new(span, pool.input, || f32::from(rng.uniform(0.0, 1.0) < rate));
                test(&format!("{pool:?} T={steps}"), &pool, &spikes, (0..orders()).map(|_| rng.next_u64()).collect());
            }
        }
    }
}

fn params(pool: &Pool, spikes: &Tensor, of_spike: f32, from: &impl Buffer, to: &impl Buffer) -> PoolForward {
    let Span { batch, steps } = spikes.span;
    PoolForward {
        input: from.address(),
        pooled: to.address(),
        pool: pool.into(),
        images: (steps * batch) as u32,
        words: words(pool.input.c) as u32,
        share: of_spike / (pool.kernel.h * pool.kernel.w) as f32,
        padding: 0,
    }
}

#[test]
fn max_pool_forward_matches() {
    let mut rng = Rng::fresh("max_pool_forward");
    let mut cases = 0;
    each_case(PoolKind::Max, &mut rng, |what, pool, spikes, schedules| {
        let mut want = Cpu.spikes(spikes.span, pool.output).unwrap();
        Cpu.max_pool_forward(pool, spikes.span, &spikes.cpu_bits(), &mut want).unwrap();
        let want = Tensor::from_cpu_bits(spikes.span, pool.output, &want);

        for seed in schedules {
            let device = Device::new(seed);
            let (from, to) = (device.bits(spikes), device.empty_bits(spikes.span, pool.output));
            let outputs = pool.output.pixels() * words(pool.output.c);
            device.run("max_pool_forward", launch(outputs), &params(pool, spikes, 1.0, &from, &to));
            assert_same(what, &device.get_bits(&to, spikes.span, pool.output), &want);
            assert!(device.get::<u32>(&to) == want.gpu_bits(), "{what}: padding");
            cases += 1;
        }
    });
    assert_eq!(cases, 3 * 7 * 6 * orders());
}

#[test]
fn avg_pool_forward_matches() {
    let mut rng = Rng::fresh("avg_pool_forward");
    let mut cases = 0;
    each_case(PoolKind::Avg, &mut rng, |what, pool, spikes, schedules| {
        let mut want = Cpu.activations(spikes.span, pool.output).unwrap();
        Cpu.avg_pool_forward(pool, spikes.span, Input::Spikes { bits: &spikes.cpu_bits(), scale: OF_SPIKE }, &mut want)
            .unwrap();
        let want = Tensor::from_cpu_floats(spikes.span, pool.output, &want);

        for seed in schedules {
            let device = Device::new(seed);
            let from = device.bits(spikes);
            for value in VALUES {
                let (what, want) = (format!("{value:?} {what}"), want.clone().rounded(value));
                let to = device.empty_values(value, spikes.span, pool.output);
                let kernel = format!("avg_pool_forward_{}", value.name());
                let outputs = 4 * pool.output.pixels() * words(pool.output.c);
                device.run(&kernel, launch(outputs), &params(pool, spikes, OF_SPIKE, &from, &to));
                assert_same(&what, &device.get_values(value, &to, spikes.span, pool.output), &want);
                assert!(device.get::<u8>(&to) == value.encode(&want.gpu_floats()), "{what}: padding");
                cases += 1;
            }
        }
    });
    assert_eq!(cases, 3 * 7 * 6 * 3 * orders());
}
