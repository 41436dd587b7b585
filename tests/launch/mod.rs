//! The device that the tests of kernels run on: the emulator, or with `ADALI_TEST_DEVICE=cuda` the first NVIDIA card.

#![allow(dead_code)] // each test program uses a part of this

use adali::backend::gpu::cuda::{Cuda, CudaBuffer};
use adali::backend::gpu::emulator::{Emulator, EmulatorBuffer};
use adali::backend::gpu::tile::Card;
use adali::backend::gpu::{Buffer, Driver, Launch};
use anyhow::Result;
use std::sync::OnceLock;

/// Runs a kernel on buffers that its test holds until it is done, and that no other thread has.
#[allow(unsafe_code)]
pub fn launch(driver: &impl Driver, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
    // SAFETY: each test makes its own buffers, of the extents that it launches with, and they live until its end; the
    // emulator checks that.
    unsafe { driver.launch(kernel, launch, params) }
}

/// Makes recorded launches again, on buffers that their test still holds.
#[allow(unsafe_code)]
pub fn replay<D: Driver>(driver: &D, graph: &D::Graph) -> Result<()> {
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

/// Launches that were recorded.
pub enum TestGraph {
    Emulator(<Emulator as Driver>::Graph),
    Cuda(<Cuda as Driver>::Graph),
}

/// A copy to the host that is under way.
pub enum TestReading {
    Emulator(<Emulator as Driver>::Reading),
    Cuda(<Cuda as Driver>::Reading),
}

/// Whether a card is tested.
pub fn on_card() -> bool {
    match std::env::var("ADALI_TEST_DEVICE").as_deref() {
        Ok("cuda") => true,
        Ok("emulator") | Err(_) => false,
        Ok(other) => panic!("ADALI_TEST_DEVICE={other} is neither emulator nor cuda"),
    }
}

impl TestDriver {
    /// The device asked for; the emulator's schedules follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_memory(seed, None)
    }

    /// The same; an emulated one with so many bytes of memory.
    pub fn with_memory(seed: u64, memory: Option<usize>) -> Self {
        static CARD: OnceLock<Cuda> = OnceLock::new();
        if on_card() {
            return Self::Cuda(CARD.get_or_init(|| Cuda::open(0).expect("a card")));
        }
        Self::Emulator(Emulator::with_memory(seed, memory))
    }

    /// What plans must know: of a card what it says, else `emulated`.
    pub fn card(&self, emulated: Card) -> Card {
        match self {
            Self::Emulator(_) => emulated,
            Self::Cuda(card) => card.card(),
        }
    }
}

/// The same call of either device.
macro_rules! either {
    ($driver:expr, $call:ident($($argument:expr),*)) => {
        match $driver {
            TestDriver::Emulator(emulator) => emulator.$call($($argument),*),
            TestDriver::Cuda(card) => card.$call($($argument),*),
        }
    };
    ($driver:expr, $call:ident(in $Type:ident $of:expr $(, $argument:expr)*)) => {
        match ($driver, $of) {
            (TestDriver::Emulator(emulator), $Type::Emulator(of)) => emulator.$call(of $(, $argument)*),
            (TestDriver::Cuda(card), $Type::Cuda(of)) => card.$call(of $(, $argument)*),
            _ => panic!("of another device"),
        }
    };
}

impl Driver for TestDriver {
    type Buffer = TestBuffer;
    type Graph = TestGraph;
    type Reading = TestReading;

    fn available_memory(&self) -> Option<usize> {
        either!(self, available_memory())
    }

    /// Memory that holds poison.
    fn allocate(&self, bytes: usize) -> Result<TestBuffer> {
        Ok(match self {
            Self::Emulator(emulator) => TestBuffer::Emulator(emulator.allocate(bytes)?),
            Self::Cuda(card) => {
                let buffer = card.allocate(bytes)?;
                card.upload(&buffer, 0, &vec![0xff; bytes])?;
                TestBuffer::Cuda(buffer)
            }
        })
    }

    fn clear(&self, buffer: &TestBuffer) -> Result<()> {
        either!(self, clear(in TestBuffer buffer))
    }

    fn upload(&self, to: &TestBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        either!(self, upload(in TestBuffer to, offset, bytes))
    }

    fn upload_beside(&self, slot: usize, to: &TestBuffer, offset: usize, parts: &[&[u8]]) -> Result<()> {
        match (self, to) {
            (Self::Emulator(emulator), TestBuffer::Emulator(to)) => emulator.upload_beside(slot, to, offset, parts),
            (Self::Cuda(card), TestBuffer::Cuda(to)) => card.upload_beside(slot, to, offset, parts),
            _ => panic!("a buffer of another device"),
        }
    }

    fn release(&self, slot: usize) -> Result<()> {
        either!(self, release(slot))
    }

    fn download(&self, from: &TestBuffer) -> Result<Vec<u8>> {
        either!(self, download(in TestBuffer from))
    }

    fn start_reading(&self, from: &TestBuffer) -> Result<TestReading> {
        Ok(match (self, from) {
            (Self::Emulator(emulator), TestBuffer::Emulator(from)) => {
                TestReading::Emulator(emulator.start_reading(from)?)
            }
            (Self::Cuda(card), TestBuffer::Cuda(from)) => TestReading::Cuda(card.start_reading(from)?),
            _ => panic!("a buffer of another device"),
        })
    }

    fn finish_reading(&self, reading: &mut TestReading) -> Result<Option<Vec<u8>>> {
        either!(self, finish_reading(in TestReading reading))
    }

    fn synchronize(&self) -> Result<()> {
        either!(self, synchronize())
    }

    fn seconds(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        either!(self, seconds(work))
    }

    fn synchronous(&self) -> bool {
        either!(self, synchronous())
    }

    #[allow(unsafe_code)]
    unsafe fn launch(&self, kernel: &str, extents: Launch, params: &[u8]) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { either!(self, launch(kernel, extents, params)) }
    }

    fn begin_recording(&self) -> Result<()> {
        either!(self, begin_recording())
    }

    fn end_recording(&self) -> Result<TestGraph> {
        Ok(match self {
            Self::Emulator(emulator) => TestGraph::Emulator(emulator.end_recording()?),
            Self::Cuda(card) => TestGraph::Cuda(card.end_recording()?),
        })
    }

    #[allow(unsafe_code)]
    unsafe fn replay(&self, graph: &TestGraph) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { either!(self, replay(in TestGraph graph)) }
    }
}
