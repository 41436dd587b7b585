//! `cp.async`: issued by an instruction, done when its group is waited for.

use super::Fault;
use super::block::Context;
use super::lanes::{Files, lanes};
use super::memory::check;
use super::warp::{Copy, Warp};
use crate::lower::{Instruction, Space, WIDE_ADDRESS};
use crate::memory;

pub(super) fn copy_async(
    warp: &mut Warp,
    context: &mut Context,
    files: &Files,
    i: &Instruction,
    at: usize,
) -> Result<(), Fault> {
    let list = &context.launch.kernel.lists[i.x as usize..];
    let mut to = files.addresses(i.a, i.flags & WIDE_ADDRESS != 0, list[0]);
    let from = files.addresses(i.b, true, list[1]);
    let sizes = files.r(i.c);
    let bytes = i.count as u32;
    check(warp, context, &mut to, files.mask, Space::Shared, bytes, at)?;
    // Bytes that are not copied are not read: their address need not exist.
    let mut reading = 0;
    for l in lanes(files.mask) {
        let size = sizes.0[l];
        if size > bytes {
            return Err(context.fault(warp, at, &format!("lane {l} takes {size} bytes of {bytes}")));
        }
        if size != 0
            && size != bytes
            && (!memory::holds(from[l], size as usize) || !from[l].is_multiple_of(bytes as u64))
        {
            return Err(context.fault(warp, at, &format!("lane {l} takes {size} bytes at {:#x}", from[l])));
        }
        reading |= ((size == bytes) as u32) << l;
    }
    if reading != 0 {
        let first = from[reading.trailing_zeros() as usize];
        let mut checked = std::array::from_fn(|l| if reading >> l & 1 != 0 { from[l] } else { first });
        check(warp, context, &mut checked, reading, Space::Global, bytes, at)?;
    }
    for l in lanes(files.mask) {
        let (taken, commit) = (sizes.0[l] as u8, warp.commits[l]);
        warp.copies.push(Copy { lane: l as u8, bytes: i.count, taken, commit, from: from[l], to: to[l] as u32 });
    }
    Ok(())
}
