//! Memory, copies and launches on a GPU: one stream for launches and everything ordered with them, another for concurrent
//! copies.
#![allow(unsafe_code)]

use super::staging::{CudaReading, Ring, record, wait_for};
use super::{Cuda, CudaBuffer, CudaGraph, Memory, lock};
use crate::backend::gpu::driver::{exists, fits};
use crate::backend::gpu::{Driver, Launch};
use anyhow::{Result, anyhow, bail};
use cudarc::driver::sys::{CUevent_flags, CUresult};
use cudarc::driver::{DevicePtr, result};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

impl Driver for Cuda {
    type Buffer = CudaBuffer;
    type Graph = CudaGraph;
    type Reading = CudaReading;

    fn available_memory(&self) -> Option<usize> {
        if self.recording.is_on() {
            return None; // not allowed on a thread that records
        }
        // Freed memory counts only once the stream has reached the point of the free.
        self.stream.synchronize().ok()?;
        self.stream.context().mem_get_info().ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<CudaBuffer> {
        self.recording.idle("an allocation")?;
        // SAFETY: the content is undefined, as the trait says.
        let memory = unsafe { self.stream.alloc::<u8>(bytes.max(1)) };
        let memory = memory.map_err(|error| match (error.0, self.available_memory()) {
            (CUresult::CUDA_ERROR_OUT_OF_MEMORY, Some(free)) => {
                anyhow!("{} has no room for {bytes} bytes: {free} bytes are free", self.described)
            }
            _ => self.explain(error, &format!("allocate {bytes} bytes")),
        })?;
        let address = memory.device_ptr(&self.stream).0;
        let (memory, recording) = (Some(Memory(memory)), self.recording.clone());
        Ok(CudaBuffer { memory, address, len: bytes, beside: AtomicBool::new(false), recording })
    }

    fn clear(&self, buffer: &CudaBuffer) -> Result<()> {
        if buffer.len == 0 {
            return Ok(());
        }
        self.noted(self.bind("clear memory").and_then(|()| {
            // SAFETY: the buffer has so many bytes and lives; its end, too, is in order with the launches.
            unsafe { result::memset_d8_async(buffer.address, 0, buffer.len, self.stream.cu_stream()) }
                .map_err(|error| self.explain(error, "clear memory"))
        }))?;
        self.settle("a clear")
    }

    /// Piece by piece through page-locked memory; waits only if that is full of unfinished copies.
    fn upload(&self, to: &CudaBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.recording.idle("an upload")?;
        fits(bytes.len(), offset, to.len)?;
        self.bind("upload")?;
        let mut ring = lock(&self.ring);
        let mut at = to.address + offset as u64;
        for piece in bytes.chunks(Ring::CHUNK) {
            let slot = ring.next();
            // SAFETY: its last copy has been waited for; the range lies in the buffer, whose uses and end are in order
            // with the copy.
            let sent = slot.wait().and_then(|()| unsafe { slot.send(0, &[piece], piece.len(), at, &self.stream) });
            sent.map_err(|error| self.explain(error, "upload"))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Through the slot's page-locked memory, which grows to what is copied between two releases.
    fn upload_beside(&self, slot: usize, to: &CudaBuffer, offset: usize, parts: &[&[u8]]) -> Result<()> {
        self.recording.idle("an upload")?;
        exists(slot)?;
        let total = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.len())).unwrap_or(usize::MAX);
        fits(total, offset, to.len)?;
        if total == 0 {
            return Ok(());
        }
        self.bind("upload")?;
        let explain = |error| self.explain(error, "upload");
        let beside = &mut *lock(&self.beside);
        if !to.beside.load(Ordering::Relaxed) {
            // Its memory exists only after its allocation, which is ordered with the launches.
            record(&beside.first, &self.stream).map_err(explain)?;
            wait_for(&self.copies, &beside.first).map_err(explain)?;
            to.beside.store(true, Ordering::Relaxed);
        }
        let slot = &mut beside.slots[slot];
        // SAFETY: the range lies in the buffer; launches that use it are behind the copy from the next line on, and its
        // end with them; those before it do not read it any more, says the caller, or are waited for.
        unsafe { slot.send(parts, total, to.address + offset as u64, &self.copies) }.map_err(explain)?;
        slot.hold_back(&self.stream).map_err(explain)
    }

    fn release(&self, slot: usize) -> Result<()> {
        self.recording.idle("a release")?;
        exists(slot)?;
        self.bind("release a slot")?;
        lock(&self.beside).slots[slot].release(&self.stream).map_err(|error| self.explain(error, "release a slot"))
    }

    fn download(&self, from: &CudaBuffer) -> Result<Vec<u8>> {
        self.recording.idle("a download")?;
        let mut bytes = vec![0; from.len];
        self.bind("download")?;
        if !bytes.is_empty() {
            // SAFETY: the buffer has so many bytes; the copy is complete before `bytes` can go.
            unsafe { result::memcpy_dtoh_async(&mut bytes, from.address, self.stream.cu_stream()) }
                .map_err(|error| self.explain(error, "download"))?;
        }
        self.stream.synchronize().map_err(|error| self.explain(error, "download"))?;
        Ok(bytes)
    }

    /// Into page-locked memory left by finished readings, or newly allocated.
    fn start_reading(&self, from: &CudaBuffer) -> Result<CudaReading> {
        self.recording.idle("a reading")?;
        self.bind("read")?;
        let explain = |error| self.explain(error, "read");
        let mut reading = CudaReading::new(self.stream.context(), &self.readings, from.len).map_err(explain)?;
        if let Some(staging) = &mut reading.staging {
            // SAFETY: the buffer has so many bytes, and its uses and end are in order with the copy.
            unsafe { staging.receive(from.address, from.len, &self.stream) }.map_err(explain)?;
        }
        Ok(reading)
    }

    fn finish_reading(&self, reading: &mut CudaReading) -> Result<Option<Vec<u8>>> {
        self.recording.idle("a reading")?;
        self.bind("read")?;
        let explain = |error| self.explain(error, "read");
        let Some(mut staging) = reading.staging.take() else { bail!("a reading is finished once only") };
        let read = staging
            .done()
            .and_then(|done| Ok(if done { Some(staging.bytes()?[..reading.bytes].to_vec()) } else { None }));
        match read {
            Ok(Some(bytes)) => {
                lock(&self.readings).push(staging);
                Ok(Some(bytes))
            }
            other => {
                reading.staging = Some(staging);
                other.map_err(explain)
            }
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.recording.idle("waiting")?;
        self.stream.synchronize().map_err(|error| self.explain(error, "go on"))
    }

    fn seconds(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.recording.idle("a clock")?;
        let explain = |error| self.explain(error, "time");
        let mark = || self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(explain);
        let begin = mark()?;
        work()?;
        let end = mark()?;
        begin.elapsed_ms(&end).map(|milliseconds| f64::from(milliseconds) / 1e3).map_err(explain)
    }

    fn registers(&self, kernel: &str) -> Option<u32> {
        self.functions.get(kernel)?.num_regs().ok()?.try_into().ok()
    }

    fn synchronous(&self) -> bool {
        self.synchronous
    }

    unsafe fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
        let launched = || {
            let Some(function) = self.functions.get(kernel) else { bail!("no kernel is named {kernel}") };
            let Launch { grid: [x, y, z], threads, shared } = launch;
            let (function, stream) = (function.cu_function(), self.stream.cu_stream());
            // The driver copies the parameters before it returns, into the graph if it is recording.
            let mut arguments = [params.as_ptr() as *mut c_void];
            let bound = self.stream.context().bind_to_thread();
            // SAFETY: the caller vouches for the parameters; the function is the card's own.
            bound
                .and_then(|()| unsafe {
                    result::launch_kernel(function, (x, y, z), (threads, 1, 1), shared, stream, &mut arguments)
                })
                .map_err(|error| self.explain(error, &format!("launch {kernel} with {launch:?}")))
        };
        self.noted(launched())?;
        self.settle(kernel)
    }

    fn begin_recording(&self) -> Result<()> {
        self.recording.idle("a recording")?;
        if self.synchronous {
            bail!("nothing can be recorded with ADALI_SYNC=1, which waits for every launch");
        }
        self.recording.begin(&self.stream).map_err(|error| self.explain(error, "record launches"))
    }

    fn end_recording(&self) -> Result<CudaGraph> {
        self.recording.end(&self.stream, |error| self.explain(error, "record launches"))
    }

    unsafe fn replay(&self, graph: &CudaGraph) -> Result<()> {
        self.recording.idle("a replay")?;
        if !graph.is_of(&self.recording) {
            bail!("{} cannot replay what another card recorded", self.described);
        }
        self.bind("replay launches")?;
        // SAFETY: the caller vouches for what the graph's kernels touch.
        unsafe { graph.launch(&self.stream) }.map_err(|error| self.explain(error, "replay launches"))
    }
}
