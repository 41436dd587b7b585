//! Every planted fault is caught with every seed, and its correct variant never.
//!
//! The kernels are compiled by the nvcc that the package's build finds; without it, these tests print a note and pass.

use crate::common::{self, Place};
use std::sync::LazyLock;

const SEEDS: u64 = 20;

/// PTX of both files of planted kernels.
static PTX: LazyLock<Option<[String; 2]>> =
    LazyLock::new(|| Some([common::ptx("planted_memory")?, common::ptx("planted_order")?]));

/// The launch of a planted kernel: words of input and output, blocks, threads, dynamic shared memory.
#[derive(Clone, Copy)]
struct Setting {
    input: usize,
    output: usize,
    written: bool,
    blocks: u32,
    threads: u32,
    dynamic: u32,
    count: u64,
}

const WARP: Setting = Setting { input: 32, output: 32, written: false, blocks: 1, threads: 32, dynamic: 0, count: 31 };

fn of(threads: u32) -> Setting {
    Setting { output: threads as usize, threads, ..WARP }
}

/// Runs it; an error is the reported fault.
fn run(name: &str, setting: Setting, seed: u64) -> Result<(), String> {
    output(name, setting, seed).map(drop)
}

/// Runs it and returns its output.
fn output(name: &str, setting: Setting, seed: u64) -> Result<Vec<u8>, String> {
    let texts = PTX.as_ref().expect("nvcc");
    let text = texts.iter().find(|text| text.contains(&format!(".entry {name}("))).expect("a kernel of that name");
    let Setting { blocks, threads, dynamic, count, .. } = setting;
    let input = 1u32.to_le_bytes().repeat(setting.input);
    let output = (4 * setting.output, setting.written.then_some(0));
    common::run(text, name, Place { blocks, threads, dynamic, count }, &input, output, seed)
}

/// Checks that the fault's report contains one of the `words` and that the correct variant has no fault.
#[track_caller]
fn caught(name: &str, setting: Setting, words: &[&str]) {
    if PTX.is_none() {
        return;
    }
    for seed in 0..SEEDS {
        let planted = format!("planted_{name}");
        match run(&planted, setting, seed) {
            Ok(()) => panic!("{planted}, seed {seed}: not caught"),
            Err(report) => {
                assert!(words.iter().any(|word| report.contains(word)), "{planted}, {words:?}, seed {seed}: {report}")
            }
        }
        if let Err(report) = run(&format!("right_{name}"), setting, seed) {
            panic!("right_{name}, seed {seed}: {report}");
        }
    }
}

const RACE: [&str; 3] = [
    "reads without order what another writes",
    "writes without order what another reads",
    "writes without order where",
];
const UNWRITTEN: &str = "reads what nothing has written";
const COPIED: &str = "touches the target of a copy that is not waited for";
const ANY_RACE: [&str; 4] = [RACE[0], RACE[1], RACE[2], UNWRITTEN];

#[test]
fn missing_barriers() {
    caught("missing_barrier", Setting { input: 256, output: 2, blocks: 2, threads: 128, ..WARP }, &RACE);
    caught("write_after_read", of(64), &RACE);
    caught("write_after_own_read", WARP, &[RACE[1]]);
    caught("race_in_warp", WARP, &ANY_RACE);
    caught("shared_atomics", of(64), &RACE);
}

#[test]
fn asynchronous_copies() {
    let rounds = Setting { input: 6 * 32, ..WARP };
    caught("missing_wait", rounds, &[COPIED]);
    caught("short_wait", rounds, &[COPIED]);
    caught("early_copy", WARP, &[RACE[1], COPIED]);
    caught("copy_never_waited_for", WARP, &["that it never waited for"]);
    let one = Setting { written: true, ..WARP };
    caught("misaligned_target", one, &["misaligned"]);
    caught("misaligned_source", one, &["misaligned"]);
    caught("copy_to_global", one, &["cp.async to what is not shared memory"]);
    caught("copy_from_shared", one, &["out of bounds"]);
    caught("matrix_of_global", Setting { input: 128, ..WARP }, &["ldmatrix from what is not shared memory"]);
}

#[test]
fn shared_memory() {
    let outside = ["outside of every shared array"];
    caught("shared_overflow", WARP, &outside);
    caught("dynamic_overflow", Setting { dynamic: 31 * 4, ..WARP }, &outside);
    caught("unwritten_shared", WARP, &[UNWRITTEN]);
    caught("overflow_into_next", WARP, &outside);
    caught("far_overflow", WARP, &outside);
    caught("before_shared", Setting { dynamic: 32 * 4, ..WARP }, &outside);
    caught("no_dynamic", WARP, &outside);
    caught("much_static", WARP, &["49168 bytes of static shared memory, at most 49152"]);
}

#[test]
fn registers_that_nothing_has_written() {
    if PTX.is_none() {
        return;
    }
    for seed in 0..SEEDS {
        for (name, is_number) in [("planted", false), ("right", true)] {
            let bytes = output(&format!("{name}_unwritten_register"), Setting { output: 3, blocks: 3, ..WARP }, seed);
            let sums = bytes.unwrap().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<_>>();
            assert!(sums.iter().all(|&sum| (sum == 1.0) == is_number && sum.is_nan() != is_number), "{name}: {sums:?}");
        }
    }
}

#[test]
fn every_barrier_counts() {
    for count in [1, 2047, 2048, 2049] {
        caught("many_barriers", Setting { count, ..of(64) }, &ANY_RACE);
    }
    for count in [1, 255, 256, 257] {
        caught("many_warp_barriers", Setting { count, ..WARP }, &ANY_RACE);
    }
    caught("barrier_of_warp_alone", of(64), &ANY_RACE);
}

#[test]
fn divergence() {
    let lost = ["lost lanes", "lanes wait for each other", "divergent barrier"];
    caught("skipped_barrier", of(64), &lost);
    caught("lost_lane", WARP, &lost);
    caught("partial_syncwarp", WARP, &ANY_RACE);
    caught("outside_own_mask", WARP, &["not in its own mask", "lanes wait for each other"]);
}

#[test]
fn global_memory() {
    caught("unwritten_global", WARP, &[UNWRITTEN]);
    let past = "out of bounds: at 128 of a buffer of 128 bytes";
    let before = "out of bounds: at -4 of a buffer of 128 bytes";
    caught("read_past_end", WARP, &[past]);
    caught("read_before_start", WARP, &[before]);
    caught("write_past_end", WARP, &[past]);
    caught("write_before_start", WARP, &[before]);
    for pages in [1, 2, 200] {
        caught("read_far_past_end", Setting { count: pages * 1024, ..WARP }, &["of a buffer of 128 bytes"]);
    }
    caught("misaligned_read", WARP, &["misaligned"]);
    caught("misaligned_write", WARP, &["misaligned"]);
    caught("incomplete_output", WARP, &[UNWRITTEN]);
}

#[test]
fn races_of_blocks() {
    let two = Setting { output: 2, blocks: 2, ..WARP };
    caught("race_of_blocks", two, &RACE);
    caught("read_of_other_block", two, &ANY_RACE);
    caught("write_of_last_block", Setting { written: true, output: 3, blocks: 5, ..WARP }, &[RACE[1]]);
    caught("race_with_atomic", Setting { written: true, ..two }, &RACE);
    caught("race_with_atomic", Setting { written: true, blocks: 9, ..two }, &RACE);
}

#[test]
fn kernels_without_end() {
    if PTX.is_none() {
        return;
    }
    for (name, setting) in [("endless", Setting { written: true, ..WARP }), ("endless_barriers", WARP)] {
        let report = run(&format!("planted_{name}"), setting, 1).expect_err("no end");
        assert!(report.contains("does not end"), "{report}");
        run(&format!("right_{name}"), setting, 1).expect("no fault");
    }
}
