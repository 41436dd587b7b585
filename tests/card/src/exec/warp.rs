//! A warp: its registers, the groups into which its lanes diverge, and the loop over instructions.

use super::Fault;
use super::block::Context;
use super::copies::copy_async;
use super::exchange::shuffle;
use super::lanes::{Files, V32, V64, lanes};
use super::matrix::{load_matrix, multiply};
use super::memory::{atomic, load, load_parameter, store};
use crate::half::*;
use crate::lower::BF16;
use crate::operations;
use crate::ops::*;

#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) mask: u32,
    /// Lanes that the group waits for.
    pub(super) wait: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Copy {
    pub(super) lane: u8,
    pub(super) bytes: u8,
    pub(super) taken: u8,
    /// The commit that includes it.
    pub(super) commit: u32,
    pub(super) from: u64,
    pub(super) to: u32,
}

pub(super) struct Warp {
    pub(super) r: Vec<V32>,
    pub(super) d: Vec<V64>,
    pub(super) p: Vec<u32>,
    pub(super) groups: Vec<Group>,
    pub(super) live: u32,
    pub(super) waiting: bool,
    pub(super) copies: Vec<Copy>,
    pub(super) commits: [u32; 32],
    pub(super) tid: [V32; 3],
    pub(super) number: u32,
    /// The lanes it starts with.
    pub(super) full: u32,
    /// The barrier at which it waits.
    pub(super) barrier: u32,
    /// Instructions executed in this block so far.
    pub(super) steps: u64,
    /// How many times all lanes have synchronised.
    pub(super) epoch: u32,
}

/// Instruction limit of one warp in one block, beyond which it counts as an endless loop.
const ENDLESS: u64 = 1 << 26;

pub(super) enum Stop {
    Barrier,
    End,
    Pause,
}

impl Warp {
    /// The group that runs next: of those that need not wait, the one that is furthest behind.
    pub(super) fn choose(&mut self, context: &mut Context) -> Result<Option<(Group, u32)>, Fault> {
        if self.groups.len() > 1 {
            self.groups.sort_unstable_by_key(|group| group.pc);
            let mut merged: Vec<Group> = Vec::with_capacity(self.groups.len());
            for group in &self.groups {
                match merged.last_mut() {
                    Some(last) if last.pc == group.pc => {
                        last.mask |= group.mask;
                        last.wait = last.wait.min(group.wait);
                    }
                    _ => merged.push(*group),
                }
            }
            self.groups = merged;
        }
        if self.groups.is_empty() {
            return Ok(None);
        }
        let live = self.live;
        let ready = |group: &Group| group.wait & live & !group.mask == 0;
        let Some(at) = self.groups.iter().position(ready) else {
            let group = self.groups[0];
            let waits: Vec<String> = self
                .groups
                .iter()
                .map(|g| {
                    format!(
                        "lanes {:08x} at {} wait for {:08x}",
                        g.mask,
                        context.launch.kernel.place(g.pc as usize),
                        g.wait & live
                    )
                })
                .collect();
            return Err(context.fault(
                self,
                group.pc as usize,
                &format!("lanes wait for each other: {}", waits.join("; ")),
            ));
        };
        if let Some(random) = &mut context.random
            && self.groups.len() > 1
            && random.below(4) == 0
        {
            let any = random.below(self.groups.len() as u32) as usize;
            if ready(&self.groups[any]) {
                return Ok(Some((self.groups.remove(any), u32::MAX)));
            }
        }
        let group = self.groups.remove(at);
        let limit = self.groups.iter().filter(|group| ready(group)).map(|group| group.pc).min().unwrap_or(u32::MAX);
        Ok(Some((group, limit)))
    }

    /// Runs until a barrier, the end, or an instruction limit.
    pub(super) fn run(&mut self, context: &mut Context, quantum: u32) -> Result<Stop, Fault> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has these instructions.
            return unsafe { self.run_wide(context, quantum) };
        }
        self.run_plain(context, quantum)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn run_wide(&mut self, context: &mut Context, quantum: u32) -> Result<Stop, Fault> {
        self.run_plain(context, quantum)
    }

    #[inline(always)]
    fn run_plain(&mut self, context: &mut Context, mut quantum: u32) -> Result<Stop, Fault> {
        let kernel = context.launch.kernel;
        let code = &kernel.code[..];
        'group: loop {
            let Some((group, limit)) = self.choose(context)? else { return Ok(Stop::End) };
            let Group { mut pc, mask, .. } = group;
            loop {
                if pc >= limit {
                    self.groups.push(Group { pc, mask, wait: 0 });
                    continue 'group;
                }
                if quantum == 0 {
                    self.groups.push(Group { pc, mask, wait: 0 });
                    return Ok(Stop::Pause);
                }
                quantum -= 1;
                self.steps += 1;
                let at = pc as usize;
                if self.steps > ENDLESS {
                    return Err(context.fault(self, at.min(code.len() - 1), "the kernel does not end"));
                }
                if at >= code.len() {
                    // The end of the body.
                    self.live &= !mask;
                    continue 'group;
                }
                let i = &code[at];
                let active = match i.guard {
                    0 => mask,
                    guard => {
                        let p = self.p[((guard - 1) >> 1) as usize];
                        mask & if guard - 1 & 1 != 0 { !p } else { p }
                    }
                };
                context.hits[at] += 1;
                if context.profile {
                    context.lanes[at] += active.count_ones() as u64;
                }
                if active == 0 {
                    pc += 1;
                    continue;
                }
                let files = Files {
                    r: self.r.as_mut_ptr(),
                    d: self.d.as_mut_ptr(),
                    p: self.p.as_mut_ptr(),
                    constants32: context.constants32,
                    constants64: context.constants64,
                    mask: active,
                };
                // Every lane of the warp takes part, all at this same instruction.
                macro_rules! aligned {
                    () => {
                        if self.full & !active != 0 {
                            if self.full & !self.live != 0 {
                                let what = format!(
                                    "lost lanes: lanes {:08x} of the warp have left before it",
                                    self.full & !self.live
                                );
                                return Err(context.fault(self, at, &what));
                            }
                            self.groups.push(Group { pc, mask, wait: self.full });
                            continue 'group;
                        }
                    };
                }
                // Only the lanes named by each lane's mask take part.
                macro_rules! named {
                    ($register:expr, $masks:ident) => {
                        let $masks = files.r($register);
                        let mut wanted = 0;
                        for l in lanes(active) {
                            if $masks.0[l] >> l & 1 == 0 {
                                let what = format!("lane {l} is not in its own mask {:#x}", $masks.0[l]);
                                return Err(context.fault(self, at, &what));
                            }
                            wanted |= $masks.0[l];
                        }
                        if wanted & !self.live != 0 {
                            let what =
                                format!("lost lanes: lanes {:08x}, which it names, have left", wanted & !self.live);
                            return Err(context.fault(self, at, &what));
                        }
                        if wanted & !active != 0 {
                            self.groups.push(Group { pc, mask, wait: wanted });
                            continue 'group;
                        }
                    };
                }
                macro_rules! arms {
                    ($($name:ident $signature:ident $text:literal { $function:expr })*) => {
                        match i.op {
                            Op::Branch => {
                                let rest = mask & !active;
                                if rest == 0 {
                                    pc = i.x;
                                } else {
                                    self.groups.push(Group { pc: i.x, mask: active, wait: 0 });
                                    self.groups.push(Group { pc: pc + 1, mask: rest, wait: 0 });
                                    continue 'group;
                                }
                                continue;
                            }
                            Op::Return => {
                                self.live &= !active;
                                let rest = mask & !active;
                                if rest != 0 {
                                    self.groups.push(Group { pc: pc + 1, mask: rest, wait: 0 });
                                }
                                continue 'group;
                            }
                            Op::Load => load(self, context, &files, i, at)?,
                            Op::Store => store(self, context, &files, i, at)?,
                            Op::LoadParameter => load_parameter(self, context, &files, i, at)?,
                            Op::AtomicAdd | Op::AtomicCas => atomic(self, context, &files, i, at)?,
                            Op::Shuffle => {
                                let lists = &kernel.lists[i.x as usize..];
                                named!(lists[1], masks);
                                shuffle(self, context, &files, i, at, lists[0], &masks)?;
                            }
                            Op::Ballot => {
                                named!(i.b, masks);
                                let voted = files.p(i.a) & active;
                                files.set_r(i.d, &V32(masks.0.map(|mask| voted & mask)));
                            }
                            Op::Match => {
                                named!(i.b, masks);
                                let a = files.r(i.a);
                                let mut t = V32([0; 32]);
                                for l in lanes(active) {
                                    let mut same = 0;
                                    for m in 0..32 {
                                        same |= ((a.0[m] == a.0[l]) as u32) << m;
                                    }
                                    t.0[l] = same & active & masks.0[l];
                                }
                                files.set_r(i.d, &t);
                            }
                            Op::WarpBarrier => {
                                named!(i.a, masks);
                                // A partial barrier orders only its own lanes, but the checker counts only whole warps.
                                if masks.0[active.trailing_zeros() as usize] == self.full {
                                    self.epoch += 1;
                                }
                            }
                            Op::Barrier => {
                                aligned!();
                                self.barrier = pc;
                                self.groups.push(Group { pc: pc + 1, mask, wait: 0 });
                                return Ok(Stop::Barrier);
                            }
                            Op::CopyAsync => copy_async(self, context, &files, i, at)?,
                            Op::Commit => {
                                for l in lanes(active) {
                                    self.commits[l] += 1;
                                }
                            }
                            Op::WaitGroup => {
                                let (shared, commits, pending) = (context.shared, self.commits, i.x);
                                let (epoch, warp_epoch, shadow) = (context.epoch, self.epoch, &mut context.shadow);
                                self.copies.retain(|copy| {
                                    let lane = copy.lane as usize;
                                    let due = active >> lane & 1 != 0 && copy.commit + pending < commits[lane];
                                    if due {
                                        if let Some(shadow) = shadow {
                                            for word in &mut shadow[copy.to as usize / 4..][..copy.bytes as usize / 4] {
                                                word.arrive(epoch, warp_epoch);
                                            }
                                        }
                                        // SAFETY: both ends were checked when it was asked for.
                                        unsafe {
                                            let to = shared.add(copy.to as usize);
                                            std::ptr::copy_nonoverlapping(copy.from as *const u8, to, copy.taken as usize);
                                            to.add(copy.taken as usize).write_bytes(0, (copy.bytes - copy.taken) as usize);
                                        }
                                    }
                                    !due
                                });
                            }
                            Op::LoadMatrix => {
                                aligned!();
                                load_matrix(self, context, &files, i, at)?;
                            }
                            Op::Multiply => {
                                aligned!();
                                multiply(&files, &kernel.lists[i.x as usize..i.x as usize + 14], i.flags & BF16 != 0, context.cuts_off);
                            }
                            Op::Special => {
                                let value = match i.x {
                                    0..3 => self.tid[i.x as usize],
                                    3..6 => V32([context.launch.block[i.x as usize - 3]; 32]),
                                    6..9 => V32([context.ctaid[i.x as usize - 6]; 32]),
                                    9..12 => V32([context.launch.grid[i.x as usize - 9]; 32]),
                                    12 => V32(std::array::from_fn(|l| l as u32)),
                                    _ => V32([self.number; 32]),
                                };
                                files.set_r(i.d, &value);
                            }
                            Op::Pack => {
                                let (a, b) = (files.r(i.a), files.r(i.b));
                                if i.width == 8 {
                                    let mut t = V64([0; 32]);
                                    for l in 0..32 {
                                        t.0[l] = (b.0[l] as u64) << 32 | a.0[l] as u64;
                                    }
                                    files.set_d(i.d, &t);
                                } else {
                                    let mut t = V32([0; 32]);
                                    for l in 0..32 {
                                        t.0[l] = b.0[l] << 16 | a.0[l] & 0xffff;
                                    }
                                    files.set_r(i.d, &t);
                                }
                            }
                            Op::Unpack => {
                                let (mut low, mut high) = (V32([0; 32]), V32([0; 32]));
                                if i.width == 8 {
                                    let a = files.d(i.a);
                                    for l in 0..32 {
                                        low.0[l] = a.0[l] as u32;
                                        high.0[l] = (a.0[l] >> 32) as u32;
                                    }
                                } else {
                                    let a = files.r(i.a);
                                    for l in 0..32 {
                                        low.0[l] = a.0[l] & 0xffff;
                                        high.0[l] = a.0[l] >> 16;
                                    }
                                }
                                files.set_r(i.d, &low);
                                files.set_r(i.b, &high);
                            }
                            Op::SetPredicate => {
                                let value = match i.x {
                                    0 => 0,
                                    1 => !0,
                                    _ => files.p(i.a),
                                };
                                files.set_p(i.d, value);
                            }
                            $(Op::$name => files.$signature(i, $function),)*
                        }
                    };
                }
                operations!(arms);
                pc += 1;
            }
        }
    }
}
