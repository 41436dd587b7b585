//! The device that the kernel tests run on: the software GPU (`tests/card`), each instance with its own order of blocks,
//! warps, streams and copies, or with `ADALI_TEST_DEVICE=cuda` the first NVIDIA GPU.

use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::tile::Card;
use adali::backend::gpu::{Driver, Launch};
use anyhow::Result;
use std::sync::LazyLock;

/// Runs a kernel on buffers that its test holds until it is done, and that no other thread uses.
#[allow(unsafe_code)]
pub fn launch(driver: &impl Driver, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
    // SAFETY: each test makes its own buffers, of the extents that it launches with, and they live until its end; the
    // card made of software checks that.
    unsafe { driver.launch(kernel, launch, params) }
}

/// Replays recorded launches, on buffers that their test still holds.
#[allow(unsafe_code)]
pub fn replay<D: Driver>(driver: &D, graph: &D::Graph) -> Result<()> {
    // SAFETY: as above; each test keeps the buffers of what it records until its end.
    unsafe { driver.replay(graph) }
}

/// Whether the tests run on an NVIDIA GPU.
pub fn on_card() -> bool {
    match std::env::var("ADALI_TEST_DEVICE").as_deref() {
        Ok("cuda") => true,
        Err(_) => false,
        Ok(other) => panic!("ADALI_TEST_DEVICE={other} is not cuda"),
    }
}

/// Whether matrix products may be truncated where they are rounded otherwise: on tensor cores, and on the software GPU if
/// requested.
pub fn cuts_off() -> bool {
    on_card() || std::env::var("CARD_MMA").is_ok_and(|mode| mode == "cut-off")
}

type AddDevice = unsafe extern "C" fn(u64, usize) -> i32;

/// Loads the software GPU, under the name by which a program looks for NVIDIA's driver.
#[allow(unsafe_code)]
static ADD_DEVICE: LazyLock<AddDevice> = LazyLock::new(|| {
    let program = std::env::current_exe().expect("a program");
    let library = program.with_file_name("libcard.so");
    // SAFETY: a library of this workspace, whose initialisers do nothing, and a function of it with this signature; it is
    // never unloaded.
    unsafe {
        let library = libloading::Library::new(&library).unwrap_or_else(|error| panic!("{error}"));
        let add = *library.get::<AddDevice>("card_add").expect("the function");
        std::mem::forget(library);
        add
    }
});

/// The device under test; the order of its work is derived from `seed`.
pub fn open(seed: u64) -> Cuda {
    open_with(seed, 1 << 40)
}

/// The same with `memory` bytes, unless it is an NVIDIA GPU.
#[allow(unsafe_code)]
pub fn open_with(seed: u64, memory: usize) -> Cuda {
    if on_card() {
        // Held to the end, so that the context stays alive when a test drops its handle.
        static HELD: LazyLock<Cuda> = LazyLock::new(|| Cuda::open(0).expect("a card"));
        LazyLock::force(&HELD);
        return Cuda::open(0).expect("a card");
    }
    // SAFETY: the function takes any numbers.
    let ordinal = unsafe { ADD_DEVICE(seed, memory) };
    Cuda::open(ordinal as usize).expect("a device")
}

/// The card properties that plans need: as reported by an NVIDIA GPU, or as the test wants on the software GPU.
pub fn card(driver: &Cuda, software: Card) -> Card {
    if on_card() { driver.card() } else { software }
}
