//! The kernels of these tests: compiled by the nvcc that the package's build finds, run by the executor.

use card::checker::{self, Kind};
use card::exec::{self, Launch, Worker};
use card::order::Order;
use card::parse::Module;
use card::{lower, memory};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The stream used for everything here.
const STREAM: usize = 1;

fn nvcc() -> Option<PathBuf> {
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cuda/bin");
    let folders = home.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/local/cuda/bin".into(), project]);
    folders.map(|folder| folder.join("nvcc")).find(|path| path.is_file())
}

/// The PTX of `tests/NAME.cu`; `None`, with a message, if there is no nvcc.
pub fn ptx(name: &str) -> Option<String> {
    Some(String::from_utf8(compile(name, "--ptx")?).expect("a text"))
}

/// `tests/NAME.cu` compiled with the nvcc option `kind`.
pub fn compile(name: &str, kind: &str) -> Option<Vec<u8>> {
    let Some(nvcc) = nvcc() else {
        eprintln!("LEFT OUT: no nvcc is found for {name}.cu; `make cuda` fetches one");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = folder.path().join("made");
    let mut command = Command::new(nvcc);
    command.arg(kind).args("-arch=compute_80 -O3 -std=c++17 -fmad=false --expt-relaxed-constexpr -lineinfo".split(' '));
    command.arg("-I").arg(root.join("../../kernels")).arg("-o").arg(&made).arg(root.join(format!("tests/{name}.cu")));
    let output = command.output().expect("nvcc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(made).expect("what it made"))
}

/// The launch of a kernel, and the number it takes after the addresses of its input and output.
#[derive(Clone, Copy)]
pub struct Place {
    pub blocks: u32,
    pub threads: u32,
    pub dynamic: u32,
    pub count: u64,
}

fn upload(order: &Order, bytes: &[u8]) -> u64 {
    let address = allocate(bytes.len());
    let run = order.begin(STREAM);
    checker::host_touches(order, run, address, bytes.len(), Kind::Write).expect("no fault");
    // SAFETY: as many bytes as were allocated.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u8, bytes.len()) }.copy_from_slice(bytes);
    address
}

fn allocate(bytes: usize) -> u64 {
    memory::allocate(bytes, &Arc::default()).expect("memory")
}

/// Runs a kernel of the PTX on `input` and an output of so many bytes, initially filled with the given byte if any. Returns the
/// output, or the fault.
pub fn run(
    ptx: &str,
    name: &str,
    place: Place,
    input: &[u8],
    output: (usize, Option<u8>),
    seed: u64,
) -> Result<Vec<u8>, String> {
    let kernel = lower::lower(&Module::parse(ptx)?, name)?;
    let order = Order::default();
    let input = upload(&order, input);
    let (bytes, written) = output;
    let output = written.map_or_else(|| allocate(bytes), |byte| upload(&order, &vec![byte; bytes]));
    let parameters: Vec<u8> = [input, output, place.count].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut workers = [Worker::new(false, Some((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), true)];
    let launch = Launch {
        kernel: &kernel,
        grid: [place.blocks, 1, 1],
        block: [place.threads, 1, 1],
        dynamic: place.dynamic,
        parameters: &parameters,
        run: order.begin(STREAM),
        order: &order,
    };
    let result = exec::run(&launch, &mut workers).and_then(|()| {
        let run = order.begin(STREAM);
        checker::host_touches(&order, run, output, bytes, Kind::Read)?;
        // SAFETY: as many bytes as were allocated.
        Ok(unsafe { std::slice::from_raw_parts(output as *const u8, bytes) }.to_vec())
    });
    memory::free(input);
    memory::free(output);
    result
}
