//! Loads, stores and atomics, and the checks of their addresses.

use super::block::Context;
use super::lanes::{Files, V32, V64, lanes};
use super::warp::Warp;
use super::{Fault, SHARED};
use crate::checker::{Access, Kind};
use crate::lower::{CONSTANT, Instruction, SIGNED, Space, WIDE, WIDE_ADDRESS, WINDOW_BITS};
use crate::memory::{self, Extent};
use crate::ops::Op;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Checks the lanes' addresses; returns the offset that turns each into a host pointer.
#[inline(always)]
pub(super) fn check(
    warp: &Warp,
    context: &mut Context,
    addresses: &mut [u64; 32],
    mask: u32,
    space: Space,
    bytes: u32,
    at: usize,
) -> Result<u64, Fault> {
    let mut space = space;
    if space == Space::Generic {
        space = if addresses[mask.trailing_zeros() as usize] & SHARED != 0 { Space::Shared } else { Space::Global };
        if space == Space::Shared {
            for l in 0..32 {
                addresses[l] ^= SHARED;
            }
        }
    }
    if space == Space::Shared {
        locate(warp, context, addresses, mask, bytes, at)?;
    }
    let (mut low, mut high, mut all) = (u64::MAX, 0, 0);
    for l in 0..32 {
        low = low.min(addresses[l]);
        high = high.max(addresses[l]);
        all |= addresses[l];
    }
    let end = high.saturating_add(bytes as u64);
    if all & (bytes as u64 - 1) != 0 {
        return Err(context.bad_address(warp, at, space, addresses, mask, bytes));
    }
    if context.profile {
        profile(context, addresses, mask, space, bytes, at);
    }
    if space == Space::Shared {
        if end > context.shared_bytes as u64 {
            return Err(context.bad_address(warp, at, space, addresses, mask, bytes));
        }
        if context.shadow.is_some() {
            watch(warp, context, addresses, mask, space, bytes, at)?;
        }
        return Ok(context.shared as u64);
    }
    let extent = &mut context.extents[at];
    if low < extent.start || end > extent.end {
        *extent = memory::extent(low).unwrap_or(Extent::NONE);
        if low < extent.start || end > extent.end {
            // The lanes may access several allocations.
            for l in lanes(mask) {
                if !memory::holds(addresses[l], bytes as usize) {
                    return Err(context.bad_address(warp, at, space, addresses, mask, bytes));
                }
            }
        }
    }
    if context.shadow.is_some() {
        watch(warp, context, addresses, mask, space, bytes, at)?;
    }
    Ok(0)
}

/// Turns addresses of shared memory, where each variable has its own window, into byte offsets in the block's memory.
#[inline(always)]
fn locate(
    warp: &Warp,
    context: &Context,
    addresses: &mut [u64; 32],
    mask: u32,
    bytes: u32,
    at: usize,
) -> Result<(), Fault> {
    let windows = &context.windows;
    for l in 0..32 {
        let (window, offset) = (addresses[l] >> WINDOW_BITS, addresses[l] & ((1 << WINDOW_BITS) - 1));
        match windows.get(window as usize) {
            Some(&(base, length)) if offset + bytes as u64 <= length as u64 => addresses[l] = base as u64 + offset,
            _ => return Err(outside(warp, context, addresses[l], mask, l, bytes, at)),
        }
    }
    Ok(())
}

#[cold]
fn outside(warp: &Warp, context: &Context, address: u64, mask: u32, lane: usize, bytes: u32, at: usize) -> Fault {
    let what = match context.launch.kernel.code[at].op {
        Op::CopyAsync => "cp.async to what is not shared memory, or past its end",
        Op::LoadMatrix => "ldmatrix from what is not shared memory, or past its end",
        Op::Store => "write outside of every shared array",
        _ => "read outside of every shared array",
    };
    let offset = address & ((1 << WINDOW_BITS) - 1);
    let length = context.windows.get((address >> WINDOW_BITS) as usize).map_or(0, |window| window.1);
    let lane = if mask >> lane & 1 != 0 { lane } else { mask.trailing_zeros() as usize };
    context.fault(warp, at, &format!("lane {lane}: {bytes} bytes: {what} (byte {offset} of an array of {length})"))
}

/// Reports each lane's words to the checker.
#[cold]
pub(super) fn watch(
    warp: &Warp,
    context: &mut Context,
    addresses: &[u64; 32],
    mask: u32,
    space: Space,
    bytes: u32,
    at: usize,
) -> Result<(), Fault> {
    let kernel = context.launch.kernel;
    let kind = match kernel.code[at].op {
        Op::Store => Kind::Write,
        Op::AtomicAdd | Op::AtomicCas => Kind::Atomic,
        Op::CopyAsync if space == Space::Shared => Kind::Asked,
        _ => Kind::Read,
    };
    let mut extent = context.extents[at];
    for l in lanes(mask) {
        let (words, offset) = match (space, &mut context.shadow) {
            (Space::Shared, Some(shadow)) => (shadow.as_mut_ptr(), addresses[l]),
            _ => {
                if !extent.holds(addresses[l], bytes as u64) {
                    extent = memory::extent(addresses[l]).unwrap_or(Extent::NONE);
                }
                let Some(shadow) = extent.shadow else { continue };
                (shadow, addresses[l] - extent.start)
            }
        };
        let mask_of_bytes = if bytes < 4 { ((1 << bytes) - 1) << (offset % 4) } else { 15 };
        let access = Access {
            run: context.runs[(space == Space::Shared) as usize],
            block: context.block,
            epoch: context.epoch,
            warp_epoch: warp.epoch,
            thread: (warp.number * 32 + l as u32) as u16,
            bytes: mask_of_bytes,
            atomic: kind == Kind::Atomic,
            at: at as u32,
        };
        for word in 0..bytes.div_ceil(4) as usize {
            // SAFETY: the access lies in the memory that the shadow belongs to.
            let wrong = unsafe { (*words.add(offset as usize / 4 + word)).touch(&access, kind, context.launch.order) };
            let Some((what, earlier)) = wrong else { continue };
            let other = match earlier.run {
                0 => String::new(),
                _ if earlier.host() => " (a copy or clear)".to_string(),
                _ if earlier.run != access.run => " (another launch)".to_string(),
                _ => format!(
                    " (thread {} of block {} at {})",
                    earlier.thread,
                    earlier.block,
                    kernel.place(earlier.at as usize)
                ),
            };
            let (thread, block) = (access.thread, context.block);
            let byte = offset as usize + 4 * word;
            return Err(format!(
                "{}: thread {thread} of block {block} {what} in {space:?} memory at byte {byte}{other}",
                kernel.place(at)
            ));
        }
    }
    Ok(())
}

/// Counts 32-byte sectors of global memory, or wavefronts of shared memory.
#[cold]
pub(super) fn profile(context: &mut Context, addresses: &[u64; 32], mask: u32, space: Space, bytes: u32, at: usize) {
    if space == Space::Global {
        let mut sectors: Vec<u64> = lanes(mask).map(|l| addresses[l] / 32).collect();
        sectors.sort_unstable();
        sectors.dedup();
        context.transactions[at] += sectors.len() as u64;
        let mut pieces: Vec<u64> = lanes(mask).map(|l| addresses[l] / bytes as u64).collect();
        pieces.sort_unstable();
        pieces.dedup();
        context.ideal[at] += (pieces.len() as u64 * bytes as u64).div_ceil(32);
        return;
    }
    // 8 or 16 bytes per lane are transferred by halves or quarters of the warp.
    let at_once = (128 / bytes.max(4)) as usize;
    for part in 0..32 / at_once {
        let mut words: Vec<u64> = lanes(mask)
            .filter(|l| l / at_once == part)
            .flat_map(|l| (0..bytes.div_ceil(4) as u64).map(move |word| addresses[l] / 4 + word))
            .collect();
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; 32];
        words.iter().for_each(|word| banks[(word % 32) as usize] += 1);
        let wavefronts = banks.iter().max().copied().unwrap_or(0);
        if context.launch.kernel.code[at].op == Op::CopyAsync {
            context.copied[at] += wavefronts;
        } else {
            context.transactions[at] += wavefronts;
            context.ideal[at] += words.len().div_ceil(32) as u64;
        }
    }
}

pub(super) fn load(warp: &Warp, context: &mut Context, files: &Files, i: &Instruction, at: usize) -> Result<(), Fault> {
    let list = &context.launch.kernel.lists[i.x as usize..];
    let mut addresses = files.addresses(i.a, i.flags & WIDE_ADDRESS != 0, list[0]);
    let bytes = i.width as u32 * i.count as u32;
    let base = check(warp, context, &mut addresses, files.mask, i.space, bytes, at)?;
    for number in 0..i.count as u32 {
        let target = list[1 + number as usize];
        let add = base + (number * i.width as u32) as u64;
        // SAFETY: every lane's address was checked, or is that of a lane that was.
        unsafe {
            if i.width == 8 {
                let mut t = V64([0; 32]);
                for l in 0..32 {
                    t.0[l] = *((addresses[l] + add) as *const u64);
                }
                files.set_d(target, &t);
                continue;
            }
            let mut t = V32([0; 32]);
            match i.width {
                4 => (0..32).for_each(|l| t.0[l] = *((addresses[l] + add) as *const u32)),
                2 if i.flags & SIGNED != 0 => {
                    (0..32).for_each(|l| t.0[l] = *((addresses[l] + add) as *const i16) as u32)
                }
                2 => (0..32).for_each(|l| t.0[l] = *((addresses[l] + add) as *const u16) as u32),
                _ if i.flags & SIGNED != 0 => {
                    (0..32).for_each(|l| t.0[l] = *((addresses[l] + add) as *const i8) as u32)
                }
                _ => (0..32).for_each(|l| t.0[l] = *((addresses[l] + add) as *const u8) as u32),
            }
            if i.flags & WIDE != 0 {
                let mut wide = V64([0; 32]);
                for l in 0..32 {
                    wide.0[l] = if i.flags & SIGNED != 0 { t.0[l] as i32 as i64 as u64 } else { t.0[l] as u64 };
                }
                files.set_d(target, &wide);
            } else {
                files.set_r(target, &t);
            }
        }
    }
    Ok(())
}

pub(super) fn store(
    warp: &Warp,
    context: &mut Context,
    files: &Files,
    i: &Instruction,
    at: usize,
) -> Result<(), Fault> {
    let list = &context.launch.kernel.lists[i.x as usize..];
    let mut addresses = files.addresses(i.a, i.flags & WIDE_ADDRESS != 0, list[0]);
    let bytes = i.width as u32 * i.count as u32;
    let base = check(warp, context, &mut addresses, files.mask, i.space, bytes, at)?;
    for number in 0..i.count as u32 {
        let source = list[1 + number as usize];
        let add = base + (number * i.width as u32) as u64;
        // SAFETY: every lane's address was checked.
        unsafe {
            if i.flags & WIDE != 0 {
                let t = files.d(source);
                for l in lanes(files.mask) {
                    let address = addresses[l] + add;
                    match i.width {
                        8 => *(address as *mut u64) = t.0[l],
                        4 => *(address as *mut u32) = t.0[l] as u32,
                        2 => *(address as *mut u16) = t.0[l] as u16,
                        _ => *(address as *mut u8) = t.0[l] as u8,
                    }
                }
            } else {
                let t = files.r(source);
                for l in lanes(files.mask) {
                    let address = addresses[l] + add;
                    match i.width {
                        4 => *(address as *mut u32) = t.0[l],
                        2 => *(address as *mut u16) = t.0[l] as u16,
                        _ => *(address as *mut u8) = t.0[l] as u8,
                    }
                }
            }
        }
    }
    Ok(())
}

pub(super) fn load_parameter(
    warp: &Warp,
    context: &Context,
    files: &Files,
    i: &Instruction,
    at: usize,
) -> Result<(), Fault> {
    let list = &context.launch.kernel.lists[i.x as usize..];
    let addresses = files.addresses(i.a, i.flags & WIDE_ADDRESS != 0, list[0]);
    let parameters = context.launch.parameters;
    let width = i.width as usize;
    let bytes = width * i.count as usize;
    for l in lanes(files.mask) {
        if addresses[l] as usize + bytes > parameters.len() {
            return Err(context.fault(
                warp,
                at,
                &format!("lane {l}: parameter byte {} of {}", addresses[l], parameters.len()),
            ));
        }
    }
    for number in 0..i.count as usize {
        let value = |address: u64| {
            let mut value = [0; 8];
            let start = address as usize + number * width;
            value[..width].copy_from_slice(&parameters[start..start + width]);
            let value = u64::from_le_bytes(value);
            if i.flags & SIGNED != 0 { ((value << (64 - 8 * width)) as i64 >> (64 - 8 * width)) as u64 } else { value }
        };
        let target = list[1 + number];
        let uniform = i.a & CONSTANT != 0;
        let mut t = V64([if uniform { value(addresses[0]) } else { 0 }; 32]);
        if !uniform {
            (0..32).for_each(|l| t.0[l] = value(addresses[l]));
        }
        if i.flags & WIDE != 0 {
            files.set_d(target, &t);
        } else {
            files.set_r(target, &V32(t.0.map(|value| value as u32)));
        }
    }
    Ok(())
}

pub(super) fn atomic(
    warp: &Warp,
    context: &mut Context,
    files: &Files,
    i: &Instruction,
    at: usize,
) -> Result<(), Fault> {
    let mut addresses = files.addresses(i.a, i.flags & WIDE_ADDRESS != 0, i.x);
    let base = check(warp, context, &mut addresses, files.mask, i.space, i.width as u32, at)?;
    let add = i.op == Op::AtomicAdd;
    // SAFETY: every lane's address was checked; other threads of the host use atomics there as well.
    unsafe {
        if i.width == 8 {
            let (b, mut t) = (files.d(i.b), V64([0; 32]));
            for l in lanes(files.mask) {
                let cell = &*((addresses[l] + base) as *const AtomicU64);
                t.0[l] = if add {
                    cell.fetch_add(b.0[l], Ordering::Relaxed)
                } else {
                    cell.compare_exchange(b.0[l], files.d(i.c).0[l], Ordering::Relaxed, Ordering::Relaxed)
                        .unwrap_or_else(|old| old)
                };
            }
            files.set_d(i.d, &t);
        } else {
            let (b, mut t) = (files.r(i.b), V32([0; 32]));
            for l in lanes(files.mask) {
                let cell = &*((addresses[l] + base) as *const AtomicU32);
                t.0[l] = if add {
                    cell.fetch_add(b.0[l], Ordering::Relaxed)
                } else {
                    cell.compare_exchange(b.0[l], files.r(i.c).0[l], Ordering::Relaxed, Ordering::Relaxed)
                        .unwrap_or_else(|old| old)
                };
            }
            files.set_r(i.d, &t);
        }
    }
    Ok(())
}
