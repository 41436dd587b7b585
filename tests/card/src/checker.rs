//! Unless `CARD_CHECK=0`: who accessed each word of memory last, to find races and reads of unwritten memory. Lanes of one warp
//! are ordered only by `bar.warp.sync`, threads of a block by `bar.sync`, blocks by nothing.

use crate::memory::{self, Extent};
use crate::order::Order;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    Write,
    Atomic,
    /// An asynchronous copy: it may write until it has been waited for.
    Asked,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Access {
    /// 0: none.
    pub run: u32,
    pub block: u32,
    pub epoch: u32,
    pub warp_epoch: u32,
    pub thread: u16,
    /// The bytes of the word, as a mask.
    pub bytes: u8,
    pub atomic: bool,
    /// The instruction.
    pub at: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Word {
    write: Access,
    reads: [Access; 2],
    /// Bytes that have been written, as a mask.
    pub written: u8,
    pending: bool,
}

/// Stands for the thread in accesses by copies and clears.
const HOST: u16 = u16::MAX;

pub fn wanted() -> bool {
    std::env::var_os("CARD_CHECK").is_none_or(|value| value != "0")
}

impl Access {
    /// Whether a copy or clear made it.
    pub fn host(&self) -> bool {
        self.thread == HOST
    }

    fn before(&self, other: &Access, order: &Order) -> bool {
        if self.run != other.run {
            return order.before(self.run, other.run);
        }
        if self.block != other.block {
            return false;
        }
        self.thread == other.thread
            || self.epoch < other.epoch
            || (self.thread / 32 == other.thread / 32 && self.warp_epoch < other.warp_epoch)
    }

    fn conflicts(&self, other: &Access, order: &Order) -> bool {
        self.run != 0 && self.bytes & other.bytes != 0 && !self.before(other, order) && !(self.atomic && other.atomic)
    }
}

impl Word {
    /// Records an access; returns what is wrong with it, and the earlier access it conflicts with.
    pub fn touch(&mut self, access: &Access, kind: Kind, order: &Order) -> Option<(&'static str, Access)> {
        let mut wrong = None;
        if self.pending {
            wrong = Some(("touches the target of a copy that is not waited for", self.write));
        } else if self.write.conflicts(access, order) {
            let what = if kind == Kind::Read {
                "reads without order what another writes"
            } else {
                "writes without order where another writes"
            };
            wrong = Some((what, self.write));
        } else if kind != Kind::Read
            && let Some(read) = self.reads.iter().find(|read| read.conflicts(access, order))
        {
            wrong = Some(("writes without order what another reads", *read));
        }
        if kind == Kind::Read {
            if access.bytes & !self.written != 0 && wrong.is_none() {
                wrong = Some(("reads what nothing has written", Access::default()));
            }
            if self.reads[0].run != access.run
                || self.reads[0].block != access.block
                || self.reads[0].thread != access.thread
            {
                self.reads[1] = self.reads[0];
            }
            self.reads[0] = *access;
        } else {
            self.write = *access;
            self.written |= access.bytes;
            self.pending = kind == Kind::Asked;
        }
        wrong
    }

    /// A copy has completed.
    pub fn arrive(&mut self, epoch: u32, warp_epoch: u32) {
        self.pending = false;
        (self.write.epoch, self.write.warp_epoch) = (epoch, warp_epoch);
    }
}

/// Records that a copy or clear accesses device memory; the error says what is wrong with that.
pub fn host_touches(order: &Order, run: u32, address: u64, bytes: usize, kind: Kind) -> Result<(), String> {
    let Some(Extent { start, end: last, shadow: Some(shadow) }) = memory::extent(address) else { return Ok(()) };
    let (mut at, end) = (address - start, address - start + bytes as u64);
    while at < end {
        let next = (at / 4 * 4 + 4).min(end);
        let bytes = ((1u32 << (next - at)) - 1) << (at % 4);
        let access = Access { run, thread: HOST, bytes: bytes as u8, ..Access::default() };
        // SAFETY: the shadow has a word for each four bytes of the allocation, which `memory::holds`.
        if let Some((what, _)) = unsafe { (*shadow.add(at as usize / 4)).touch(&access, kind, order) } {
            return Err(format!("a copy, clear or free {what}, at byte {at} of a buffer of {} bytes", last - start));
        }
        at = next;
    }
    Ok(())
}
