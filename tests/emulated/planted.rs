//! Every planted fault is reported under every schedule, its correct twin under none.

use super::*;

const SEEDS: u64 = 20;

/// Where a planted kernel runs: words of input and output, blocks, threads, dynamic shared memory.
#[derive(Clone, Copy)]
struct Setting {
    input: usize,
    output: usize,
    written: bool,
    launch: Launch,
    count: u64,
}

const WARP: Setting = Setting {
    input: 32,
    output: 32,
    written: false,
    launch: Launch { grid: [1, 1, 1], threads: 32, shared: 0 },
    count: 31,
};

fn run(kernel: &str, setting: Setting, seed: u64) -> anyhow::Result<Vec<u8>> {
    let device = Emulator::new(seed);
    let input = upload(&device, &vec![1u32; setting.input]);
    let output = device.allocate(4 * setting.output).expect("memory");
    if setting.written {
        device.upload(&output, 0, &vec![0; 4 * setting.output]).expect("it fits");
    }
    let params = [input.address(), output.address(), setting.count];
    launch(&device, kernel, setting.launch, bytemuck::bytes_of(&params))?;
    device.download(&output)
}

/// The fault's report names the kernel and has all `words`, the twin has none.
#[track_caller]
fn caught(name: &str, setting: Setting, words: &[&str]) {
    for seed in 0..SEEDS {
        let planted = format!("planted_{name}");
        let report = match run(&planted, setting, seed) {
            Ok(_) => panic!("{planted}, seed {seed}: not caught"),
            Err(report) => report.to_string(),
        };
        assert!(report.starts_with(&planted), "seed {seed}: {report}");
        assert!(words.iter().any(|word| report.contains(word)), "{words:?}, seed {seed}: {report}");
        if let Err(report) = run(&format!("right_{name}"), setting, seed) {
            panic!("right_{name}, seed {seed}: {report}");
        }
    }
}

fn of(threads: u32) -> Setting {
    Setting { output: threads as usize, launch: blocks(1, threads), ..WARP }
}

const RACE: [&str; 3] = [
    "reads without a barrier what another thread writes",
    "writes without a barrier what another thread reads",
    "writes without a barrier where another thread writes",
];

#[test]
fn missing_barriers() {
    caught("missing_barrier", Setting { input: 2 * 128, output: 2, launch: blocks(2, 128), ..WARP }, &RACE);
    caught("write_after_read", of(64), &RACE);
    caught("write_after_own_read", WARP, &[RACE[1]]);
    caught("race_in_warp", WARP, &[RACE[0], RACE[1], "reads what nothing has written"]);
}

#[test]
fn asynchronous_copies() {
    let rounds = Setting { input: 6 * 32, ..WARP };
    caught("missing_wait", rounds, &["reads what a cp.async still copies"]);
    caught("short_wait", rounds, &["reads what a cp.async still copies"]);
    caught("early_copy", WARP, &[RACE[1], "reads what a cp.async still copies"]);
    caught("copy_never_waited_for", WARP, &["leaves without waiting for its cp.async"]);
    let one = Setting { written: true, ..WARP };
    caught("misaligned_target", one, &["misaligned cp.async of 16 bytes"]);
    caught("misaligned_source", one, &["misaligned cp.async of 16 bytes"]);
    caught("copy_to_global", one, &["cp.async to what is not shared memory"]);
    caught("copy_from_shared", one, &["cp.async from what is not global memory"]);
    caught("matrix_of_global", Setting { input: 4 * 32, ..WARP }, &["ldmatrix from what is not shared memory"]);
}

#[test]
fn shared_memory() {
    caught("shared_overflow", WARP, &["write of 4 bytes outside of every shared array"]);
    let launch = Launch { shared: 31 * 4, ..WARP.launch };
    caught("dynamic_overflow", Setting { launch, ..WARP }, &["write of 4 bytes outside of every shared array"]);
    caught("unwritten_shared", WARP, &["reads what nothing has written (words"]);
    caught("overflow_into_next", WARP, &["write of 4 bytes outside of every shared array"]);
    caught("far_overflow", WARP, &["read of 4 bytes outside of every shared array"]);
    let launch = Launch { shared: 32 * 4, ..WARP.launch };
    caught("before_shared", Setting { launch, ..WARP }, &["write of 4 bytes outside of every shared array"]);
    caught("no_dynamic", WARP, &["write of 4 bytes outside of every shared array"]);
    caught("shared_atomics", of(64), &RACE);
}

#[test]
fn more_shared_memory_than_there_is() {
    caught("much_static", WARP, &["49168 bytes of static shared memory with words, at most 49152"]);
    let launch = Launch { shared: 227 * 1024 - 32 * 4, ..WARP.launch };
    let words = "232464 bytes of shared memory, static and dynamic, with words, at most 232448";
    caught("much_shared", Setting { launch, ..WARP }, &[words]);
}

#[test]
fn every_barrier_counts() {
    for count in [1, 2047, 2048, 2049] {
        caught("many_barriers", Setting { count, ..of(64) }, &[RACE[0], RACE[1], "reads what nothing has written"]);
    }
    for count in [1, 255, 256, 257] {
        caught("many_warp_barriers", Setting { count, ..WARP }, &[RACE[0], RACE[1], "reads what nothing has written"]);
    }
    caught("barrier_of_warp_alone", of(64), &[RACE[0], RACE[1], "reads what nothing has written"]);
}

#[test]
fn kernels_without_end() {
    let report = run("planted_endless", Setting { written: true, ..WARP }, 1).expect_err("no end").to_string();
    assert!(report.contains("thread 0 does not end"), "{report}");
    let report = run("planted_endless_barriers", WARP, 1).expect_err("no end").to_string();
    assert!(report.contains("warp 0 passes 524288 barriers"), "{report}");
    run("right_endless", WARP, 1).expect("no fault");
    run("right_endless_barriers", WARP, 1).expect("no fault");
}

#[test]
fn what_a_cpu_lets_pass() {
    caught("long_shift", WARP, &["shift of 'unsigned int' by 32", "shift of 'uint32_t' by 32"]);
    caught("local_overflow", WARP, &["out of bounds of"]);
    // Not reported, but certain to be wrong.
    assert_eq!(run("planted_unset_local", WARP, 1).expect("no fault"), [0xfe; 128]);
    assert_eq!(run("right_unset_local", WARP, 1).expect("no fault"), [1, 0, 0, 0].repeat(32));
}

#[test]
fn divergence() {
    caught("skipped_barrier", of(64), &["divergent barrier: 63 of 64 threads wait"]);
    caught("two_barriers", of(64), &["divergent barrier: thread"]);
    caught("lost_lane", WARP, &["lost lanes: thread"]);
    caught("outside_own_mask", WARP, &["lane 4 is not in its own mask 0xf of __ballot_sync", "lost lanes"]);
    caught("diverged_warp", WARP, &["diverged warp: thread"]);
    caught("two_files", WARP, &["diverged warp: thread"]);
    caught("partial_syncwarp", WARP, &["__syncwarp of part of a warp, mask 0xffff"]);
}

#[test]
fn global_memory() {
    caught("unwritten_global", WARP, &["reads what nothing has written (global memory"]);
    let past = "out of bounds: at 128 of a buffer of 128 bytes";
    caught("read_past_end", WARP, &[&format!("read of 4 bytes {past}")]);
    caught("read_before_start", WARP, &["read of 4 bytes out of bounds: at -4 of a buffer of 128 bytes"]);
    caught("write_past_end", WARP, &[&format!("write of 4 bytes {past}"), RACE[2]]);
    caught("write_before_start", WARP, &["write of 4 bytes out of bounds: at -4 of a buffer of 128 bytes", RACE[2]]);
    for pages in [1, 2, 200] {
        let far = Setting { count: pages * 1024, ..WARP };
        caught("read_far_past_end", far, &["of a buffer of 128 bytes"]);
    }
    caught("misaligned_read", WARP, &["misaligned"]);
    caught("misaligned_write", WARP, &["misaligned"]);
}

#[test]
fn races_of_blocks() {
    let two = Setting { output: 2, launch: blocks(2, 32), ..WARP };
    caught("race_of_blocks", two, &RACE);
    caught("read_of_other_block", two, &[RACE[0], RACE[1], "reads what nothing has written"]);
    caught("write_of_last_block", Setting { written: true, output: 3, launch: blocks(5, 32), ..WARP }, &[RACE[1]]);
    caught("race_with_atomic", Setting { written: true, ..two }, &RACE);
    caught("race_with_atomic", Setting { written: true, launch: blocks(9, 32), ..two }, &RACE);
}

#[test]
fn incomplete_outputs_are_not_handed_out() {
    for seed in 0..SEEDS {
        let report = run("planted_incomplete_output", WARP, seed).expect_err("one word is missing").to_string();
        assert!(
            report.contains("byte 120 of a buffer of 128 bytes is read back, but nothing has written it"),
            "{report}"
        );
        run("right_incomplete_output", WARP, seed).expect("all is written");
    }
}

#[test]
fn launches_that_cannot_be() {
    let device = Emulator::new(1);
    let refused = |kernel: &str, extents: Launch, params: &[u8]| {
        launch(&device, kernel, extents, params).expect_err("refused").to_string()
    };
    let params = [0; 24];
    let fits = blocks(1, 32);
    assert_eq!(refused("norm_lif_sideways", fits, &params), "no kernel is named norm_lif_sideways");
    let report = refused("right_lost_lane", fits, &params[..16]);
    assert_eq!(report, "kernel right_lost_lane takes 24 bytes of parameters, not 16");
    for threads in [0, 64, 1024, 31] {
        let report = refused("right_lost_lane", blocks(1, threads), &params);
        assert!(report.contains(&format!("cannot run {threads} threads a block")), "{report}");
    }
    // The last two have as many blocks as 32 bits take for 0, and too many to list.
    for grid in [[0, 1, 1], [1 << 31, 1, 1], [1, 65536, 1], [1, 1, 65536], [1 << 18, 1 << 14, 1], [1 << 30, 1, 1]] {
        let report = refused("right_lost_lane", Launch { grid, ..fits }, &params);
        assert!(report.contains("cannot run a grid"), "{report}");
    }
    let report = refused("right_lost_lane", Launch { shared: 1 << 20, ..fits }, &params);
    assert!(report.contains("1048576 bytes of dynamic shared memory"), "{report}");
    let report = refused("right_lost_lane", Launch::over(usize::MAX, 1, 32), &params);
    assert!(report.contains("cannot run a grid of [4294967295, 1, 1]"), "{report}");
    // A null pointer.
    let report = refused("right_lost_lane", fits, &params);
    assert!(report.contains("write of 4 bytes out of bounds"), "{report}");
}
