//! What the driver's calls report: each fault is reported with every seed, and the correct variant never.

use crate::common;
use card::device::{Function, card_add};
use card::driver::*;
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

static FATBIN: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| common::compile("calls", "--fatbin"));
const SEEDS: u64 = 20;
const WORDS: usize = 64;
const BYTES: usize = 4 * WORDS;

const INVALID_VALUE: i32 = 1;
const LAUNCH_FAILED: i32 = 719;
const CAPTURE_UNSUPPORTED: i32 = 900;
const CAPTURE_INVALIDATED: i32 = 901;

/// A device with two streams, buffers and kernels, as one thread uses it.
struct Card {
    ordinal: i32,
    streams: [*mut Stream; 2],
    buffers: [u64; 3],
    copy_words: *const Function,
    with_shared: *const Function,
    pinned: *mut u32,
}

/// A call that succeeds.
fn ok(result: i32) {
    assert_eq!(result, 0, "{}", text(result));
}

fn text(error: i32) -> String {
    let mut words = null();
    // SAFETY: the driver gives a constant text, or one that stays with the device.
    unsafe {
        cuGetErrorString(error, &mut words);
        CStr::from_ptr(words).to_string_lossy().into_owned()
    }
}

// SAFETY of all below: handles and addresses are those that the driver gave to this very card, of the extents that they
// were asked for with; where a test breaks the contract, the driver must find it.
impl Card {
    fn new(fatbin: &[u8], seed: u64) -> Card {
        let ordinal = card_add(seed, 1 << 30);
        let (mut context, mut module) = (null(), null_mut());
        let (mut streams, mut buffers, mut pinned) = ([null_mut(); 2], [0; 3], null_mut());
        let (mut copy_words, mut with_shared) = (null(), null());
        unsafe {
            ok(cuDevicePrimaryCtxRetain(&mut context, ordinal));
            ok(cuCtxSetCurrent(context));
            ok(cuModuleLoadData(&mut module, fatbin.as_ptr().cast()));
            ok(cuModuleGetFunction(&mut copy_words, module, c"copy_words".as_ptr()));
            ok(cuModuleGetFunction(&mut with_shared, module, c"with_shared".as_ptr()));
            ok(cuMemHostAlloc(&mut pinned, BYTES, 0));
            for stream in &mut streams {
                ok(cuStreamCreate(stream, 1));
            }
            for buffer in &mut buffers {
                ok(cuMemAlloc_v2(buffer, BYTES));
                ok(cuMemsetD8Async(*buffer, 1, BYTES, streams[0]));
            }
            ok(cuStreamSynchronize(streams[0]));
        }
        let card = Card { ordinal, streams, buffers, copy_words, with_shared, pinned: pinned.cast() };
        card.fill(1);
        card
    }

    fn fill(&self, word: u32) {
        unsafe { std::slice::from_raw_parts_mut(self.pinned, WORDS) }.fill(word);
    }

    fn launch(&self, function: *const Function, stream: usize, from: usize, to: usize, shared: u32) -> i32 {
        let words: [u64; 3] = [self.buffers[from], self.buffers[to], WORDS as u64];
        let arguments = [words.as_ptr().cast::<u8>()];
        let stream = self.streams[stream];
        unsafe { cuLaunchKernel(function, 1, 1, 1, WORDS as u32, 1, 1, shared, stream, arguments.as_ptr(), null_mut()) }
    }

    fn copy(&self, stream: usize, from: usize, to: usize) {
        ok(self.launch(self.copy_words, stream, from, to, 0));
    }

    fn event(&self, flags: u32) -> *mut Event {
        let mut event = null_mut();
        ok(unsafe { cuEventCreate(&mut event, flags) });
        event
    }

    /// Stream 1 waits for everything submitted to stream 0 so far.
    fn order(&self) {
        let event = self.event(2);
        unsafe {
            ok(cuEventRecord(event, self.streams[0]));
            ok(cuStreamWaitEvent(self.streams[1], event, 0));
            ok(cuEventDestroy_v2(event));
        }
    }

    /// The error of waiting for everything.
    fn wait(&self) -> i32 {
        unsafe { cuCtxSynchronize() }
    }
}

/// Runs a case that must end with a fault containing one of these words; its correct variant must end without a fault.
fn found(words: &[&str], case: impl Fn(&Card, bool)) {
    let Some(fatbin) = &*FATBIN else { return };
    for seed in 0..SEEDS {
        for right in [true, false] {
            let card = Card::new(fatbin, seed);
            case(&card, right);
            let error = card.wait();
            if right {
                assert_eq!(error, 0, "seed {seed}: {}", text(error));
            } else {
                assert_eq!(error, LAUNCH_FAILED, "seed {seed}: not found");
                assert!(words.iter().any(|words| text(error).contains(words)), "seed {seed}: {}", text(error));
                let mut buffer = 0;
                let later = unsafe { cuMemAlloc_v2(&mut buffer, 4) };
                assert_eq!(later, LAUNCH_FAILED, "the fault stays");
            }
        }
    }
}

#[test]
fn streams_without_an_event_between_them() {
    found(&["without order"], |card, right| {
        card.copy(0, 0, 1);
        if right {
            card.order();
        }
        card.copy(1, 1, 2);
    });
    // Two reads need no event.
    found(&["without order"], |card, right| {
        card.copy(0, 0, 1);
        card.copy(1, 0, if right { 2 } else { 1 });
    });
}

#[test]
fn page_locked_memory_that_changes_before_its_copy_is_done() {
    found(&["was changed before its copy was done"], |card, right| {
        let (from, stream) = (card.pinned.cast_const().cast(), card.streams[0]);
        ok(unsafe { cuMemcpyHtoDAsync_v2(card.buffers[0], from, BYTES, stream) });
        if right {
            ok(unsafe { cuStreamSynchronize(stream) });
        }
        card.fill(2);
    });
}

#[test]
fn memory_that_is_freed_while_another_stream_uses_it() {
    // The memory may be free by then.
    found(&["without order", "out of bounds"], |card, right| {
        card.copy(0, 0, 1);
        if right {
            card.order();
        }
        ok(unsafe { cuMemFreeAsync(card.buffers[1], card.streams[1]) });
    });
    found(&["out of bounds"], |card, right| {
        if !right {
            ok(unsafe { cuMemFreeAsync(card.buffers[1], card.streams[0]) });
        }
        card.copy(0, 0, 1);
    });
}

#[test]
fn calls_that_a_capture_forbids() {
    let Some(fatbin) = &*FATBIN else { return };
    type Call = (&'static str, fn(&Card) -> i32);
    let forbidden: [Call; 6] = [
        ("cuMemAlloc", |_| unsafe { cuMemAlloc_v2(&mut 0, 4) }),
        ("cuMemHostAlloc", |_| unsafe { cuMemHostAlloc(&mut null_mut(), 4, 0) }),
        ("cuCtxSynchronize", |_| unsafe { cuCtxSynchronize() }),
        ("cuStreamSynchronize", |card| unsafe { cuStreamSynchronize(card.streams[0]) }),
        ("cuMemAllocAsync", |card| unsafe { cuMemAllocAsync(&mut 0, 4, card.streams[0]) }),
        ("cuEventQuery", |card| unsafe { cuEventQuery(card.event(0)) }),
    ];
    for seed in 0..SEEDS {
        let card = Card::new(fatbin, seed);
        for (name, call) in forbidden {
            let mut graph = null_mut();
            let begun = if name == "cuEventQuery" { Some(card.event(0)) } else { None };
            ok(unsafe { cuStreamBeginCapture_v2(card.streams[0], 1) });
            card.copy(0, 0, 1);
            let result = begun.map_or_else(|| call(&card), |event| unsafe { cuEventQuery(event) });
            assert_eq!(result, CAPTURE_UNSUPPORTED, "{name}");
            assert_eq!(unsafe { cuStreamEndCapture(card.streams[0], &mut graph) }, CAPTURE_INVALIDATED, "{name}");
            assert!(graph.is_null(), "{name}");
        }
        // The correct variant: only launches, executed when the graph is launched and not before.
        let (mut graph, mut made) = (null_mut(), null_mut());
        let mut read = [0u8; BYTES];
        unsafe {
            ok(cuStreamBeginCapture_v2(card.streams[0], 1));
            ok(cuMemsetD8Async(card.buffers[0], 7, BYTES, card.streams[0]));
            card.copy(0, 0, 1);
            ok(cuStreamEndCapture(card.streams[0], &mut graph));
            ok(cuGraphInstantiateWithFlags(&mut made, graph, 0));
            for expected in [1, 7] {
                ok(cuMemcpyDtoHAsync_v2(read.as_mut_ptr(), card.buffers[1], BYTES, card.streams[0]));
                assert!(read.iter().all(|&byte| byte == expected), "{read:?}");
                ok(cuGraphLaunch(made, card.streams[0]));
            }
        }
        ok(card.wait());
    }
}

#[test]
fn launches_that_a_card_refuses() {
    let Some(fatbin) = &*FATBIN else { return };
    let card = Card::new(fatbin, 0);
    assert_eq!(card.launch(card.with_shared, 0, 0, 1, 100_000), INVALID_VALUE, "not opted in");
    assert_eq!(unsafe { cuFuncSetAttribute(card.with_shared, 8, 232_449) }, INVALID_VALUE, "more than there is");
    ok(unsafe { cuFuncSetAttribute(card.with_shared, 8, 100_000) });
    assert_eq!(card.launch(card.with_shared, 0, 0, 1, 100_004), INVALID_VALUE, "more than was asked for");
    ok(card.launch(card.with_shared, 0, 0, 1, 100_000));
    for (grid, threads) in
        [([0, 1, 1], 64), ([1, 65_536, 1], 64), ([1, 1, 65_536], 64), ([1, 1, 1], 1025), ([1, 1, 1], 0)]
    {
        let ([x, y, z], stream) = (grid, card.streams[0]);
        let result = unsafe { cuLaunchKernel(card.copy_words, x, y, z, threads, 1, 1, 0, stream, null(), null_mut()) };
        assert_eq!(result, INVALID_VALUE, "{grid:?} of {threads}");
    }
    ok(card.wait());
}

#[test]
fn events_that_have_no_time() {
    let Some(fatbin) = &*FATBIN else { return };
    let card = Card::new(fatbin, 0);
    for (flags, timed) in [(0, true), (2, false)] {
        let (events, mut milliseconds) = ([card.event(flags), card.event(flags)], 0.0);
        unsafe {
            ok(cuEventRecord(events[0], card.streams[0]));
            card.copy(0, 0, 1);
            ok(cuEventRecord(events[1], card.streams[0]));
            ok(cuEventSynchronize(events[1]));
            assert_eq!(cuEventElapsedTime(&mut milliseconds, events[0], events[1]) == 0, timed);
        }
    }
}

#[test]
fn what_is_left_when_the_context_goes() {
    let Some(fatbin) = &*FATBIN else { return };
    for left in ["nothing", "buffer", "stream", "event", "graph"] {
        let card = Card::new(fatbin, 0);
        let (event, mut graph) = (card.event(0), null_mut());
        unsafe {
            ok(cuStreamBeginCapture_v2(card.streams[0], 1));
            ok(cuStreamEndCapture(card.streams[0], &mut graph));
            for &buffer in &card.buffers[usize::from(left == "buffer")..] {
                ok(cuMemFree_v2(buffer));
            }
            for &stream in &card.streams[usize::from(left == "stream")..] {
                ok(cuStreamDestroy_v2(stream));
            }
            if left != "event" {
                ok(cuEventDestroy_v2(event));
            }
            if left != "graph" {
                ok(cuGraphDestroy(graph));
            }
            ok(cuMemFreeHost(card.pinned.cast::<c_void>()));
            ok(cuDevicePrimaryCtxRelease_v2(card.ordinal));
            let result = cuCtxSynchronize();
            assert_eq!(result != 0, left != "nothing", "{left}");
            assert!(left == "nothing" || text(result).contains(left), "{left}: {}", text(result));
        }
    }
}
