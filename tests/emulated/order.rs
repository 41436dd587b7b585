//! The order of blocks and threads is random, and follows from the seed.

use super::*;

const BLOCKS: u32 = 8;
const THREADS: u32 = 64;

/// All threads in the order in which they came, on one thread of the host.
fn order(seed: u64) -> Vec<u32> {
    let count = (BLOCKS * THREADS) as usize;
    let device = Emulator::new(seed);
    let came = upload(&device, &vec![0u32; 1 + count]);
    let params = [came.address(), came.address(), 0];
    launch(&device, "instruction_order", blocks(BLOCKS, THREADS), bytemuck::bytes_of(&params)).expect("no fault");
    let came = device.download(&came).expect("all of it is written");
    came.as_chunks::<4>().0.iter().skip(1).map(|&thread| u32::from_le_bytes(thread)).collect()
}

#[test]
fn order_follows_from_the_seed() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| {
        let mut orders: Vec<_> = (0..20).map(order).collect();
        for (seed, came) in orders.iter().enumerate() {
            assert_eq!(&order(seed as u64), came, "seed {seed}");
            let mut each = came.clone();
            each.sort();
            assert!(each.into_iter().eq(0..BLOCKS * THREADS), "seed {seed}: {came:?}");
            let of_blocks: Vec<u32> = came.iter().step_by(THREADS as usize).map(|thread| thread / THREADS).collect();
            assert!(!of_blocks.is_sorted(), "seed {seed}: {of_blocks:?}");
            // Within a block, and in each another.
            let of_threads = |block: u32| came.iter().filter(move |&&t| t / THREADS == block).map(|t| t % THREADS);
            assert!(!of_threads(0).is_sorted(), "seed {seed}");
            assert!(!of_threads(0).eq(of_threads(1)), "seed {seed}");
        }
        orders.sort();
        orders.dedup();
        assert_eq!(orders.len(), 20, "every seed has another order");
    });
}
