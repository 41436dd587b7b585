//! Device memory is host memory at addresses that are used once only, with wide gaps; a table knows what is there.

use crate::checker::{self, Word};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

struct Entry {
    bytes: u64,
    /// Of each word, where accesses are checked: zero pages until they are touched.
    shadow: Option<(*mut Word, Layout)>,
}

// SAFETY: the shadow belongs to the entry; one launch or copy at a time touches it, as the driver's queue sees to.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

static TABLE: RwLock<BTreeMap<u64, Entry>> = RwLock::new(BTreeMap::new());
static USED: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);
pub const TOTAL: usize = 64 << 30;
/// Addresses that are reserved, and the gap behind each allocation.
const SPACE: usize = 1 << 45;
const GAP: u64 = 1 << 24;

unsafe extern "C" {
    fn mmap(address: *mut c_void, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
}
const READ_WRITE: i32 = 3;
const PRIVATE_ANONYMOUS: i32 = 0x22;
const FIXED: i32 = 0x10;
const NO_RESERVE: i32 = 0x4000;

fn map(address: u64, length: usize, protection: i32, flags: i32) -> Option<u64> {
    // SAFETY: anonymous memory; a fixed address lies in the space that `allocate` reserved.
    let made =
        unsafe { mmap(address as *mut c_void, length, protection, PRIVATE_ANONYMOUS | NO_RESERVE | flags, -1, 0) };
    (made as isize != -1).then_some(made as u64)
}

fn pages(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(4096)
}

/// Fresh memory; `None` where the machine has no more.
pub fn allocate(bytes: usize) -> Option<u64> {
    let mut table = TABLE.write().unwrap();
    if NEXT.load(Ordering::Relaxed) == 0 {
        NEXT.store(map(0, SPACE, 0, 0)?.next_multiple_of(GAP), Ordering::Relaxed);
    }
    let address = NEXT.fetch_add((pages(bytes) as u64).next_multiple_of(GAP) + GAP, Ordering::Relaxed);
    map(address, pages(bytes), READ_WRITE, FIXED)?;
    USED.fetch_add(bytes, Ordering::Relaxed);
    let shadow = checker::wanted().then(|| {
        let layout = Layout::array::<Word>(bytes.div_ceil(4).max(1)).expect("a layout");
        // SAFETY: not empty; a word of zeros is one that nothing has touched.
        (unsafe { alloc_zeroed(layout) }.cast(), layout)
    });
    table.insert(address, Entry { bytes: bytes as u64, shadow });
    Some(address)
}

/// Fills it with NaNs and large numbers: the moment from which it may be used.
pub fn scramble(address: u64) {
    if let Some((start, end)) = range(address) {
        // SAFETY: the table says that it is there.
        unsafe { (start as *mut u8).write_bytes(0xff, (end - start) as usize) };
    }
}

/// False where nothing begins there.
pub fn free(address: u64) -> bool {
    let Some(Entry { bytes, shadow }) = TABLE.write().unwrap().remove(&address) else { return false };
    USED.fetch_sub(bytes as usize, Ordering::Relaxed);
    if let Some((words, layout)) = shadow {
        // SAFETY: it came from `allocate` with this layout.
        unsafe { dealloc(words.cast(), layout) };
    }
    map(address, pages(bytes as usize), 0, FIXED).is_some()
}

/// How many allocations are there, and their bytes.
pub fn held() -> (usize, usize) {
    (TABLE.read().unwrap().len(), USED.load(Ordering::Relaxed))
}

pub fn available() -> usize {
    TOTAL.saturating_sub(USED.load(Ordering::Relaxed))
}

/// Begin and end of the allocation that holds the address.
pub fn range(address: u64) -> Option<(u64, u64)> {
    let table = TABLE.read().unwrap();
    let (&start, &Entry { bytes, .. }) = table.range(..=address).next_back()?;
    (address < start + bytes).then_some((start, start + bytes))
}

/// Bytes of the allocation that begins there.
pub fn length(start: u64) -> u64 {
    range(start).map_or(0, |(start, end)| end - start)
}

/// Whether all of it lies in one allocation.
pub fn holds(address: u64, bytes: usize) -> bool {
    range(address).is_some_and(|(_, end)| address + bytes as u64 <= end)
}

/// The nearest allocation, for a fault's message.
pub fn describe(address: u64) -> String {
    let table = TABLE.read().unwrap();
    let before = table.range(..=address).next_back().map(|(&start, entry)| (address - start, start, entry.bytes));
    match (before, table.range(address..).next()) {
        (Some((at, start, bytes)), _) if at < bytes + GAP => {
            format!("out of bounds: at {} of a buffer of {bytes} bytes", address - start)
        }
        (_, Some((&start, entry))) if start - address <= GAP => {
            format!("out of bounds: at -{} of a buffer of {} bytes", start - address, entry.bytes)
        }
        _ => "out of bounds: in no buffer, or in one that is freed".into(),
    }
}

/// The words of an allocation that are watched.
pub fn shadow(start: u64) -> Option<*mut Word> {
    TABLE.read().unwrap().get(&start)?.shadow.map(|(words, _)| words)
}
