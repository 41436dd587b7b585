//! Instructions against the PTX manual, whose results are computed here.

use crate::common::{self, Place};
use half::{bf16, f16};
use std::sync::LazyLock;

static PTX: LazyLock<Option<String>> = LazyLock::new(|| common::ptx("instructions"));

/// Random words.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}

fn bytes<T: Copy, const N: usize>(values: &[T], each: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| each(value)).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    words(bytes).into_iter().map(f32::from_bits).collect()
}

fn halves(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks().0.iter().map(|&word| u16::from_le_bytes(word)).collect()
}

fn wide(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect()
}

/// A 16-bit type as implemented by the `half` crate.
struct Half {
    name: &'static str,
    encode: fn(f32) -> u16,
    decode: fn(u16) -> f32,
    infinity: u16,
}

const HALVES: [Half; 2] = [
    Half {
        name: "bf16",
        encode: |x| bf16::from_f32(x).to_bits(),
        decode: |bits| bf16::from_bits(bits).to_f32(),
        infinity: 0x7f80,
    },
    Half {
        name: "f16",
        encode: |x| f16::from_f32(x).to_bits(),
        decode: |bits| f16::from_bits(bits).to_f32(),
        infinity: 0x7c00,
    },
];

/// The output of a kernel with so many blocks and threads; `None` without nvcc.
fn run(
    kernel: &str,
    (blocks, threads): (u32, u32),
    input: &[u8],
    output: (usize, Option<u8>),
    count: usize,
    seed: u64,
) -> Option<Vec<u8>> {
    let place = Place { blocks, threads, dynamic: 0, count: count as u64 };
    Some(common::run(PTX.as_ref()?, kernel, place, input, output, seed).unwrap_or_else(|fault| panic!("{fault}")))
}

/// The same for a kernel that writes all `bytes` bytes.
fn output(kernel: &str, extents: (u32, u32), input: &[u8], bytes: usize, count: usize, seed: u64) -> Option<Vec<u8>> {
    run(kernel, extents, input, (bytes, None), count, seed)
}

#[test]
fn matrix_multiplication() {
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    for Half { name, encode, .. } in HALVES {
        for seed in 0..5 {
            // Small integers, so that every sum is exact in any order.
            let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| (rng.next() % 31) as f32 - 15.0).collect() };
            let (a, b, c) = (values(16 * 16), values(16 * 8), values(16 * 8));
            let halves: Vec<u16> = a.iter().chain(&b).map(|&x| encode(x)).collect();
            let input = [bytes(&halves, u16::to_le_bytes), bytes(&c, f32::to_le_bytes)].concat();
            let Some(got) = output(&format!("instruction_mma_{name}"), (1, 32), &input, 16 * 8 * 4, 0, seed) else {
                return;
            };
            let product = |i: usize, j: usize| (0..16).map(|k| a[16 * i + k] * b[8 * k + j]).sum::<f32>();
            let want: Vec<f32> = (0..128).map(|i| product(i / 8, i % 8) + c[i]).collect();
            assert_eq!(floats(&got), want, "{name}");
            if name == "f16" {
                let planted = output("planted_mma", (1, 32), &input, 16 * 8 * 4, 0, seed).expect("nvcc");
                assert_ne!(floats(&planted), want, "operands in the wrong order");
            }
        }
    }
}

#[test]
fn matrix_loads() {
    let matrices: Vec<u16> = (0..4 * 64).map(|i| i * 7 + 3).collect();
    let element = |m: usize, row: usize, column: usize| matrices[64 * m + 8 * row + column] as u32;
    for (kernel, transposed) in [("instruction_ldmatrix", false), ("instruction_ldmatrix_transposed", true)] {
        let input = bytes(&matrices, u16::to_le_bytes);
        let Some(got) = output(kernel, (1, 32), &input, 4 * 32 * 4, 0, 1) else { return };
        // Of row l/4, lane l holds columns 2(l%4) and the next.
        let held = |m: usize, lane: usize, e: usize| {
            let (row, column) = (lane / 4, lane % 4 * 2 + e);
            if transposed { element(m, column, row) } else { element(m, row, column) }
        };
        let want: Vec<u32> = (0..128).map(|i| held(i / 32, i % 32, 0) | held(i / 32, i % 32, 1) << 16).collect();
        assert_eq!(words(&got), want, "{kernel}");
    }
}

#[test]
fn warp_instructions() {
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    for seed in 0..20 {
        let x: Vec<u32> = (0..32).map(|_| rng.next() as u32 >> (seed % 3)).collect();
        let input = bytes(&x, u32::to_le_bytes);
        let Some(got) = output("instruction_warp", (1, 32), &input, 11 * 128, 0, seed) else { return };
        let got = words(&got);
        let all = |f: &dyn Fn(usize) -> u32| (0..32).map(f).collect::<Vec<u32>>();
        let permuted = |x: u32| {
            let bytes = [x.to_le_bytes(), (!x).to_le_bytes()].concat();
            u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[((x >> 7) >> (4 * i) & 7) as usize]))
        };
        let bits = |f: &dyn Fn(u32) -> bool| (0..32).filter(|&i| f(x[i])).fold(0, |bits, i| bits | 1 << i);
        let want = [
            ("shfl", all(&|i| x[x[i] as usize % 32])),
            ("shfl_xor", all(&|i| x[i ^ 13])),
            ("shfl_up", all(&|i| x[if i < 5 { i } else { i - 5 }])),
            ("ballot", all(&|_| bits(&|x| x & 1 == 1))),
            ("match_any", all(&|i| bits(&|other| other % 5 == x[i] % 5))),
            ("byte_perm", all(&|i| permuted(x[i]))),
            ("popc", all(&|i| x[i].count_ones())),
            ("ffs", all(&|i| if x[i] == 0 { 0 } else { x[i].trailing_zeros() + 1 })),
            ("ballot of some", all(&|i| if i % 2 == 1 { bits(&|x| x & 2 == 2) & 0xaaaa_aaaa } else { 0 })),
            ("shfl_xor of f64", all(&|i| x[i ^ 1])),
            ("predicates", all(&|i| if x[i] & 1 == 1 { 3 } else { 5 })),
        ];
        for ((name, want), got) in want.iter().zip(got.chunks_exact(32)) {
            assert_eq!(got, want, "{name} of {x:?}");
        }
    }
}

/// Equal bits, or both NaN.
fn same(got: u16, want: u16, infinity: u16) -> bool {
    got == want || (got & 0x7fff > infinity && want & 0x7fff > infinity)
}

#[test]
fn conversions() {
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    // Every value of both types, midpoints between neighbours and values close to them, and random bits.
    let widened = (0..=u16::MAX).flat_map(|b| [bf16::from_bits(b).to_f32(), f16::from_bits(b).to_f32()]);
    let beside = |x: f32, by: i64| f32::from_bits((x.to_bits() as i64 + by).clamp(0, u32::MAX as i64) as u32);
    let mut values: Vec<f32> = widened
        .flat_map(|x| [0, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 1, -1].map(|by| beside(x, by)))
        .collect();
    values.extend((0..1 << 18).map(|_| f32::from_bits(rng.next() as u32)));
    // f16's subnormals: quarter multiples of 2^-24.
    values.extend((0..4 * 1024).flat_map(|i| [1.0f32, -1.0].map(|sign| sign * i as f32 * 0.25f32 * 2f32.powi(-24))));
    for Half { name, encode, decode, infinity } in HALVES {
        let pairs = values.len() / 2;
        let kernel = format!("instruction_pack_{name}");
        let input = bytes(&values, f32::to_le_bytes);
        let Some(got) = output(&kernel, (8, 256), &input, 4 * pairs, pairs, 1) else { return };
        for (&x, got) in values.iter().zip(halves(&got)) {
            let want = encode(x);
            assert!(same(got, want, infinity), "{name} of {x:e} ({:#x}): {got:#x}, not {want:#x}", x.to_bits());
        }
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let kernel = format!("instruction_unpack_{name}");
        let Some(got) = output(&kernel, (8, 256), &bytes(&all, u16::to_le_bytes), 4 << 16, 1 << 15, 1) else { return };
        for (bits, got) in all.into_iter().zip(floats(&got)) {
            let want = decode(bits);
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{name} {bits:#x}: {got}, not {want}"
            );
        }
    }
}

#[test]
fn atomics_of_several_blocks() {
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    for seed in 0..10 {
        let x: Vec<u32> = (0..1000).map(|_| rng.next() as u32).collect();
        let input = bytes(&x, u32::to_le_bytes);
        let Some(got) = run("instruction_atomics", (5, 64), &input, (7 * 12, Some(0)), x.len(), seed) else { return };
        let sum = |bin: u64| x.iter().map(|&x| x as u64).filter(|x| x % 7 == bin).sum::<u64>();
        let want: Vec<u64> = (0..7).map(sum).collect();
        assert_eq!(wide(&got[..56]), want);
        assert_eq!(words(&got[56..]), want.iter().map(|&x| x as u32).collect::<Vec<_>>());
    }
}

#[test]
fn atomics_in_shared_memory() {
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    for seed in 0..10 {
        let x: Vec<u32> = (0..1000).map(|_| rng.next() as u32).collect();
        let kernel = "instruction_shared_atomics";
        let input = bytes(&x, u32::to_le_bytes);
        let Some(got) = output(kernel, (3, 64), &input, 3 * 7 * 8, x.len(), seed) else { return };
        let mut want = [0; 3 * 7];
        x.iter().enumerate().for_each(|(i, &x)| want[i / 64 % 3 * 7 + x as usize % 7] += u64::from(x));
        assert_eq!(wide(&got), want);
    }
}

#[test]
fn asynchronous_copies_fill_with_zeros() {
    let mut rng = Random(0x9e37_79b9_7f4a_7c15);
    for bytes in [4, 8, 16] {
        for valid in [0, 1, 31, 32, 50, 64] {
            // If a copy is not valid, its source memory need not exist.
            let input: Vec<u8> = (0..valid * bytes).map(|_| rng.next() as u8).collect();
            let kernel = format!("instruction_cp_async_{bytes}");
            let written = output(&kernel, (1, 32), &input, 64 * bytes, valid * bytes, valid as u64);
            let Some(got) = written else { return };
            let mut want = input;
            want.resize(64 * bytes, 0);
            assert_eq!(got, want, "{kernel}, {valid} valid");
        }
    }
}

/// All threads of eight blocks of 64, in the order in which they ran.
fn order(seed: u64) -> Option<Vec<u32>> {
    let came = run("instruction_order", (8, 64), &[0; 4], (4 * (1 + 512), Some(0)), 0, seed)?;
    Some(words(&came)[1..].to_vec())
}

#[test]
fn order_follows_from_the_seed() {
    let Some(mut orders) = (0..20).map(order).collect::<Option<Vec<_>>>() else { return };
    for (seed, came) in orders.iter().enumerate() {
        assert_eq!(order(seed as u64).as_ref(), Some(came), "seed {seed}");
        let mut each = came.clone();
        each.sort();
        assert!(each.into_iter().eq(0..512), "seed {seed}: {came:?}");
    }
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), 20, "every seed has another order");
}
