//! `kernels/ceiling.cu`

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::gpu::params::{CopyMemory, MatrixRate};
use adali::backend::gpu::{Buffer, Launch};

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
