//! Every planted fault is caught under every seed, its right twin under none.
//!
//! The kernels are compiled by the nvcc that the package's build finds; without one these tests say so and pass.

use card::checker::{self, Kind};
use card::exec::{self, Launch, Worker};
use card::order::clocks;
use card::parse::Module;
use card::{lower, memory};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

const SEEDS: u64 = 20;
/// The stream that all here is in.
const STREAM: u64 = 1;

fn nvcc() -> Option<PathBuf> {
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cuda/bin");
    let folders = home.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/local/cuda/bin".into(), project]);
    folders.map(|folder| folder.join("nvcc")).find(|path| path.is_file())
}

/// PTX of both files of planted kernels.
static PTX: LazyLock<Option<[String; 2]>> = LazyLock::new(|| {
    let Some(nvcc) = nvcc() else {
        eprintln!("LEFT OUT: no nvcc is found, so no planted kernel is tested; `make cuda` fetches one");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    Some(["planted_memory", "planted_order"].map(|name| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}.cu"));
        let ptx = folder.path().join(format!("{name}.ptx"));
        let mut command = Command::new(&nvcc);
        command.args("--ptx -arch=compute_80 -O3 -std=c++17 -fmad=false -lineinfo -o".split(' '));
        let output = command.arg(&ptx).arg(source).output().expect("nvcc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(ptx).expect("PTX")
    }))
});

/// One launch at a time: memory is of one process.
static TURN: Mutex<()> = Mutex::new(());

/// Where a planted kernel runs: words of input and output, blocks, threads, dynamic shared memory.
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

fn upload(words: usize, value: u32) -> u64 {
    let address = memory::allocate(4 * words).expect("memory");
    let run = clocks().begin(STREAM);
    checker::host_touches(run, address, 4 * words, Kind::Write).expect("no fault");
    // SAFETY: as many words as were allocated.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u32, words).fill(value) };
    address
}

/// The output, or what was found.
fn run(name: &str, setting: Setting, seed: u64) -> Result<Vec<u32>, String> {
    let texts = PTX.as_ref().expect("nvcc");
    let text = texts.iter().find(|text| text.contains(&format!(".entry {name}("))).expect("a kernel of that name");
    let module = Module::parse(text)?;
    let kernel = lower::lower(&module, name)?;
    let input = upload(setting.input, 1);
    let output =
        if setting.written { upload(setting.output, 0) } else { memory::allocate(4 * setting.output).expect("memory") };
    let parameters: Vec<u8> = [input, output, setting.count].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut workers = [Worker::new(false, Some((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), true)];
    let launch = Launch {
        kernel: &kernel,
        grid: [setting.blocks, 1, 1],
        block: [setting.threads, 1, 1],
        dynamic: setting.dynamic,
        parameters: &parameters,
        run: clocks().begin(STREAM),
    };
    let mut result = exec::run(&launch, &mut workers).map(|()| Vec::new());
    if result.is_ok() {
        let run = clocks().begin(STREAM);
        result = checker::host_touches(run, output, 4 * setting.output, Kind::Read).map(|()| {
            // SAFETY: as many words as were allocated.
            unsafe { std::slice::from_raw_parts(output as *const u32, setting.output) }.to_vec()
        });
    }
    memory::free(input);
    memory::free(output);
    result
}

/// The fault's report names the kernel and has one of the `words`; the twin has none.
#[track_caller]
fn caught(name: &str, setting: Setting, words: &[&str]) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if PTX.is_none() {
        return;
    }
    for seed in 0..SEEDS {
        let planted = format!("planted_{name}");
        match run(&planted, setting, seed) {
            Ok(_) => panic!("{planted}, seed {seed}: not caught"),
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
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for (name, setting) in [("endless", Setting { written: true, ..WARP }), ("endless_barriers", WARP)] {
        let report = run(&format!("planted_{name}"), setting, 1).expect_err("no end");
        assert!(report.contains("does not end"), "{report}");
        run(&format!("right_{name}"), setting, 1).expect("no fault");
    }
}
