//! The device that the tests of kernels run on: the emulator, or with `ADALI_TEST_DEVICE=cuda` the first NVIDIA card.

#![allow(dead_code)]

use adali::backend::gpu::cuda::{Cuda, CudaBuffer};
use adali::backend::gpu::emulator::{Emulator, EmulatorBuffer};
use adali::backend::gpu::{Buffer, Driver, Launch};
use std::sync::OnceLock;

/// Runs a kernel on buffers that its test holds until it is done, and that no other thread has.
#[allow(unsafe_code)]
pub fn launch(driver: &impl Driver, kernel: &str, launch: Launch, params: &[u8]) -> anyhow::Result<()> {
    // SAFETY: each test makes its own buffers, of the extents that it launches with, and they live until its end; the
    // emulator checks that.
    unsafe { driver.launch(kernel, launch, params) }
}

/// Makes recorded launches again, on buffers that their test still holds.
#[allow(unsafe_code)]
pub fn replay<D: Driver>(driver: &D, graph: &D::Graph) -> anyhow::Result<()> {
    // SAFETY: as above; each test keeps the buffers of what it records until its end.
    unsafe { driver.replay(graph) }
}

/// A device.
pub enum TestDriver {
    Emulator(Emulator),
    Cuda(&'static Cuda),
}

/// Its memory.
pub enum TestBuffer {
    Emulator(EmulatorBuffer),
    Cuda(CudaBuffer),
}

impl Buffer for TestBuffer {
    fn address(&self) -> u64 {
        match self {
            Self::Emulator(buffer) => buffer.address(),
            Self::Cuda(buffer) => buffer.address(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Emulator(buffer) => buffer.len(),
            Self::Cuda(buffer) => buffer.len(),
        }
    }
}

impl TestDriver {
    /// The device asked for; the emulator's schedules follow from `seed`.
    pub fn new(seed: u64) -> Self {
        static CARD: OnceLock<Cuda> = OnceLock::new();
        match std::env::var("ADALI_TEST_DEVICE").as_deref() {
            Ok("cuda") => Self::Cuda(CARD.get_or_init(|| Cuda::open(0).expect("a card"))),
            Ok("emulator") | Err(_) => Self::Emulator(Emulator::new(seed)),
            Ok(other) => panic!("ADALI_TEST_DEVICE={other} is neither emulator nor cuda"),
        }
    }

    /// Memory that holds poison.
    pub fn allocate(&self, bytes: usize) -> anyhow::Result<TestBuffer> {
        Ok(match self {
            Self::Emulator(emulator) => TestBuffer::Emulator(emulator.allocate(bytes)?),
            Self::Cuda(card) => {
                let buffer = card.allocate(bytes)?;
                card.upload(&buffer, 0, &vec![0xff; bytes])?;
                TestBuffer::Cuda(buffer)
            }
        })
    }

    pub fn upload(&self, to: &TestBuffer, bytes: &[u8]) -> anyhow::Result<()> {
        match (self, to) {
            (Self::Emulator(emulator), TestBuffer::Emulator(to)) => emulator.upload(to, 0, bytes),
            (Self::Cuda(card), TestBuffer::Cuda(to)) => card.upload(to, 0, bytes),
            _ => panic!("a buffer of another device"),
        }
    }

    pub fn download(&self, from: &TestBuffer) -> anyhow::Result<Vec<u8>> {
        match (self, from) {
            (Self::Emulator(emulator), TestBuffer::Emulator(from)) => emulator.download(from),
            (Self::Cuda(card), TestBuffer::Cuda(from)) => card.download(from),
            _ => panic!("a buffer of another device"),
        }
    }

    /// See [`launch`].
    pub fn launch(&self, kernel: &str, extents: Launch, params: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Emulator(emulator) => launch(emulator, kernel, extents, params),
            Self::Cuda(card) => launch(*card, kernel, extents, params),
        }
    }
}
