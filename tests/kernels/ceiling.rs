//! `kernels/ceiling.cu`

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::gpu::params::{CopyMemory, MatrixRate};
use adali::backend::gpu::{Buffer, Launch};
use half::{bf16, f16};

#[test]
fn a_copy_is_whole_whatever_its_length() {
    let mut rng = Rng::fresh("copy_memory");
    for bytes in [1, 15, 16, 17, 255 * 16, 1024 * 16, 1024 * 16 + 3, 4099 * 16 - 1] {
        let values: Vec<u8> = (0..bytes).map(|_| rng.next_u64() as u8).collect();
        for device in schedules(&mut rng) {
            let (from, to) = (device.put(&values), device.empty(bytes));
            let params = CopyMemory { from: from.address(), to: to.address(), bytes: bytes as u64 };
            device.run("copy_memory", Launch::over(bytes.div_ceil(16), 1024, 256), &params);
            assert_eq!(device.get::<u8>(&to), values, "{bytes} bytes");
        }
    }
}

const SEED: u32 = 7;
/// Products that a warp has in flight.
const CHAINS: usize = 8;

/// Random bits, computed as in the kernel.
fn mixed(thread: usize, i: usize) -> u32 {
    let x = SEED.wrapping_add((thread << 8 | i) as u32);
    let x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    let x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// The lower or upper value of a 16-bit operand's register.
fn operand(value: Value, thread: usize, i: usize, upper: usize) -> f64 {
    let bits = (mixed(thread, i) >> (16 * upper)) as u16;
    match value {
        Value::Bf16 => bf16::from_bits(bits & 0x80ff | 0x3f00).to_f64(),
        _ => f16::from_bits(bits & 0x87ff | 0x3800).to_f64(),
    }
}

/// The increase of a thread's sums per round, and the sum of the absolute values added.
fn growth(value: Value, thread: usize) -> (f64, f64) {
    let (warp, group, q) = (thread / 32 * 32, thread % 32 / 4, thread % 4);
    let (mut sum, mut sizes) = (0.0, 0.0);
    for chain in 0..CHAINS {
        for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for k in 0..16 {
                let (lane, above) = (k % 8 / 2, k / 8);
                let a = operand(value, warp + 4 * group + lane, row + 2 * above, k % 2);
                let b = operand(value, warp + 4 * (2 * q + column) + lane, 4 + 2 * chain + above, k % 2);
                sum += a * b;
                sizes += (a * b).abs();
            }
        }
    }
    (sum, sizes)
}

#[test]
fn every_product_is_done() {
    let mut rng = Rng::fresh("matrix_rate");
    for rounds in [1u32, 3] {
        for value in VALUES {
            for device in schedules(&mut rng) {
                let out = device.empty(4 * 512);
                let params = MatrixRate { out: out.address(), rounds, seed: SEED };
                device.run(&format!("matrix_rate_{}", value.name()), Launch::over(512, 256, 256), &params);
                for (i, sum) in device.get::<f32>(&out).into_iter().enumerate() {
                    let (want, tolerance) = if value == Value::F32 {
                        let factor = |j| f32::from_bits(mixed(i % 256, j) & 0x80ff_ffff | 0x3f00_0000);
                        let factors: Vec<f32> = (0..16).map(factor).collect();
                        let grown = |j: usize| {
                            (0..rounds).fold(j as f32, |sum, _| factors[j].mul_add(factors[(j + 1) % 16], sum))
                        };
                        (f64::from((0..16).map(grown).fold(0.0, |sum, x| sum + x)), 0.0)
                    } else {
                        let (grown, sizes) = growth(value, i % 256);
                        let first = (0..4 * CHAINS).sum::<usize>() as f64;
                        let rounds = f64::from(rounds);
                        (first + rounds * grown, 1e-6 * (first + rounds * sizes))
                    };
                    assert!((f64::from(sum) - want).abs() <= tolerance, "{value:?}, thread {i}: {sum} of {want}");
                }
            }
        }
    }
}
