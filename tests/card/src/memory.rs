//! Device memory is host memory at addresses that are never reused, with wide gaps; a table lists the allocations.

use crate::checker::{self, Word};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

struct Entry {
    bytes: u64,
    /// Bytes that its device has allocated.
    used: Arc<AtomicUsize>,
    /// One word per word of memory, if accesses are checked: zero pages until they are touched.
    shadow: Option<(*mut Word, Layout)>,
}

// SAFETY: the shadow belongs to the entry; one launch or copy at a time touches it, as the driver's queue sees to.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

static TABLE: RwLock<BTreeMap<u64, Entry>> = RwLock::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
/// The reserved address space, and the gap after each allocation.
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

/// New memory for a device that has allocated `used` bytes; `None` if the machine has no more.
pub fn allocate(bytes: usize, used: &Arc<AtomicUsize>) -> Option<u64> {
    let mut table = TABLE.write().unwrap();
    if NEXT.load(Ordering::Relaxed) == 0 {
        NEXT.store(map(0, SPACE, 0, 0)?.next_multiple_of(GAP), Ordering::Relaxed);
    }
    let address = NEXT.fetch_add((pages(bytes) as u64).next_multiple_of(GAP) + GAP, Ordering::Relaxed);
    map(address, pages(bytes), READ_WRITE, FIXED)?;
    used.fetch_add(bytes, Ordering::Relaxed);
    let shadow = checker::wanted().then(|| {
        let layout = Layout::array::<Word>(bytes.div_ceil(4).max(1)).expect("a layout");
        // SAFETY: not empty; a word of zeros is one that nothing has touched.
        (unsafe { alloc_zeroed(layout) }.cast(), layout)
    });
    table.insert(address, Entry { bytes: bytes as u64, used: used.clone(), shadow });
    Some(address)
}

/// Fills it with NaNs and large numbers; from then on it may be used.
pub fn scramble(address: u64) {
    if let Some(Extent { start, end, .. }) = extent(address) {
        // SAFETY: the table says that it is there.
        unsafe { (start as *mut u8).write_bytes(0xff, (end - start) as usize) };
    }
}

/// Returns false if no allocation starts there.
pub fn free(address: u64) -> bool {
    let Some(Entry { bytes, used, shadow }) = TABLE.write().unwrap().remove(&address) else { return false };
    used.fetch_sub(bytes as usize, Ordering::Relaxed);
    if let Some((words, layout)) = shadow {
        // SAFETY: it came from `allocate` with this layout.
        unsafe { dealloc(words.cast(), layout) };
    }
    map(address, pages(bytes as usize), 0, FIXED).is_some()
}

/// An allocation: its start and end, and its shadow words if accesses are checked.
#[derive(Clone, Copy)]
pub struct Extent {
    pub start: u64,
    pub end: u64,
    pub shadow: Option<*mut Word>,
}

// SAFETY: as of an entry.
unsafe impl Send for Extent {}

impl Extent {
    pub const NONE: Extent = Extent { start: 1, end: 0, shadow: None };

    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.start && address.saturating_add(bytes) <= self.end
    }
}

/// The allocation that contains the address.
pub fn extent(address: u64) -> Option<Extent> {
    let table = TABLE.read().unwrap();
    let (&start, Entry { bytes, shadow, .. }) = table.range(..=address).next_back()?;
    let extent = Extent { start, end: start + bytes, shadow: shadow.map(|(words, _)| words) };
    (address < extent.end).then_some(extent)
}

/// The number of allocations that count towards `used`, and their bytes.
pub fn held(used: &Arc<AtomicUsize>) -> (usize, usize) {
    let table = TABLE.read().unwrap();
    (table.values().filter(|entry| Arc::ptr_eq(&entry.used, used)).count(), used.load(Ordering::Relaxed))
}

/// Whether the whole range lies in one allocation.
pub fn holds(address: u64, bytes: usize) -> bool {
    extent(address).is_some_and(|extent| extent.holds(address, bytes as u64))
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
