//! `kernels/ceiling.cu`

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::gpu::params::{CopyMemory, MatrixRate};
use adali::backend::gpu::{Buffer, Launch};

#[test]
fn a_copy_is_whole_whatever_its_length() {
    let mut rng = Rng::fresh("copy_memory");
    for vectors in [1, 255, 1024, 1025, 4099] {
        let values: Vec<f32> = (0..4 * vectors).map(|_| rng.normal() as f32).collect();
        for device in schedules(&mut rng) {
            let (from, to) = (device.put(&values), device.empty(16 * vectors));
            let params = CopyMemory { from: from.address(), to: to.address(), vectors: vectors as u64 };
            device.run("copy_memory", Launch::over(vectors, 1024, 256), &params);
            assert_eq!(device.get::<f32>(&to), values);
        }
    }
}

#[test]
fn every_product_is_done() {
    let mut rng = Rng::fresh("matrix_rate");
    for rounds in [1u32, 3] {
        for (kernel, sums, of_round) in [("bf16", 32, 16), ("f16", 32, 16), ("f32", 16, 1)] {
            for device in schedules(&mut rng) {
                let out = device.empty(4 * 512);
                let params = MatrixRate { out: out.address(), rounds, one: 1.0 };
                device.run(&format!("matrix_rate_{kernel}"), Launch::over(512, 256, 256), &params);
                let first: u32 = (0..sums).sum();
                let expected = (first + sums * of_round * rounds) as f32;
                assert!(device.get::<f32>(&out).iter().all(|&sum| sum == expected), "{kernel}");
            }
        }
    }
}
