//! Recorded launches: a stream's capture and the graph that results.
#![allow(unsafe_code)]

use anyhow::{Result, anyhow, bail};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// Whether a card's launches are being recorded.
///
/// Meanwhile nothing on the card is freed: a stream-ordered free would itself be recorded, for memory that does not come
/// from the graph, and a capturing thread may not make other calls. Whatever is dropped is kept until the end.
#[derive(Default)]
pub(super) struct Recording {
    state: Mutex<Option<State>>,
}

struct State {
    thread: ThreadId,
    dropped: Vec<Box<dyn Send>>,
    /// Why it is unusable.
    refused: Option<String>,
}

impl Recording {
    pub(super) fn is_on(&self) -> bool {
        super::lock(&self.state).is_some()
    }

    /// Fails during a recording.
    pub(super) fn idle(&self, what: &str) -> Result<()> {
        if self.is_on() {
            bail!("{what} cannot be recorded, only launches and clears");
        }
        Ok(())
    }

    /// Drops something that belongs to the card, now or when the recording is over.
    pub(super) fn discard(&self, thing: impl Send + 'static) {
        // Locked until it is dropped, so that no recording begins meanwhile.
        let mut state = super::lock(&self.state);
        match state.as_mut() {
            Some(state) => state.dropped.push(Box::new(thing)),
            None => drop(thing),
        }
    }

    /// Marks the recording, if there is one, as unusable because a recorded launch has failed.
    pub(super) fn refuse(&self, error: &anyhow::Error) {
        if let Some(state) = super::lock(&self.state).as_mut() {
            state.refused.get_or_insert_with(|| format!("{error:#}"));
        }
    }

    pub(super) fn begin(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let mut state = super::lock(&self.state);
        // Only for this thread: another may use another card, or this one through another stream.
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        *state = Some(State { thread: std::thread::current().id(), dropped: Vec::new(), refused: None });
        Ok(())
    }

    /// Ends the recording; `explain` converts the card's errors.
    pub(super) fn end(
        self: &Arc<Self>,
        stream: &CudaStream,
        explain: impl Fn(DriverError) -> anyhow::Error,
    ) -> Result<CudaGraph> {
        let context = stream.context();
        let (captured, State { dropped, refused, .. }) = {
            let mut state = super::lock(&self.state);
            match &*state {
                None => bail!("nothing is recorded"),
                // The driver would refuse as well, and keep recording.
                Some(state) if state.thread != std::thread::current().id() => {
                    bail!("a recording ends on the thread that began it")
                }
                Some(_) => {}
            }
            // An error left there by a `Drop` would be reported once while the stream keeps recording, so try twice.
            let bound = context.bind_to_thread().or_else(|_| context.bind_to_thread());
            // SAFETY: the stream lives, and this thread has begun its capture.
            let captured = bound.and_then(|()| unsafe { result::stream::end_capture(stream.cu_stream()) });
            (captured, state.take().ok_or_else(|| anyhow!("nothing is recorded"))?)
        };
        drop(dropped);
        let captured = captured.map(|graph| Captured { graph, context });
        if let Some(error) = refused {
            bail!("the recording failed: {error}");
        }
        let captured = captured.map_err(&explain)?;
        if captured.graph.is_null() {
            bail!("the recording failed: the driver gave no graph");
        }
        // SAFETY: the graph is whole, and this function's own.
        let executable = unsafe { result::graph::instantiate(captured.graph, sys::CUgraphInstantiate_flags(0)) };
        let executable = Executable { graph: executable.map_err(&explain)?, context: context.clone() };
        // SAFETY: both live.
        unsafe { result::graph::upload(executable.graph, stream.cu_stream()) }.map_err(&explain)?;
        Ok(CudaGraph { executable: Some(executable), recording: self.clone() })
    }

    /// Ends the recording, if there is one, and discards it.
    pub(super) fn abandon(self: &Arc<Self>, stream: &CudaStream) {
        if self.is_on() {
            let _ = self.end(stream, |error| anyhow!("{error}"));
        }
    }
}

/// A captured graph, from which executable ones are made.
struct Captured<'a> {
    graph: sys::CUgraph,
    context: &'a CudaContext,
}

impl Drop for Captured<'_> {
    fn drop(&mut self) {
        if !self.graph.is_null() {
            // SAFETY: it is destroyed here alone; the executable graphs made from it stand by themselves.
            self.context.record_err(unsafe { result::graph::destroy(self.graph) });
        }
    }
}

/// A graph that can be launched.
struct Executable {
    graph: sys::CUgraphExec,
    context: Arc<CudaContext>,
}

// SAFETY: a graph belongs to no thread, and one at a time has it.
unsafe impl Send for Executable {}

impl Drop for Executable {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: it is destroyed here alone; the driver lets a launch that is under way come to its end.
        self.context.record_err(unsafe { result::graph::exec_destroy(self.graph) });
    }
}

/// Launches recorded by a card. It is not `Sync`: one thread at a time uses it.
pub struct CudaGraph {
    executable: Option<Executable>,
    recording: Arc<Recording>,
}

impl CudaGraph {
    /// Launches the graph.
    ///
    /// # Safety
    /// As for `Driver::replay`; the context must be current on this thread.
    pub(super) unsafe fn launch(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let Some(executable) = &self.executable else { return Ok(()) };
        // SAFETY: both live; the caller vouches for what the graph's kernels touch.
        unsafe { result::graph::launch(executable.graph, stream.cu_stream()) }
    }

    /// Whether it belongs to the card that uses this recording.
    pub(super) fn is_of(&self, recording: &Arc<Recording>) -> bool {
        Arc::ptr_eq(&self.recording, recording)
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if let Some(executable) = self.executable.take() {
            self.recording.discard(executable);
        }
    }
}
