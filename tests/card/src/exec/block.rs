//! A block: its warps, its shared memory, and what a host thread keeps between blocks.

use super::lanes::{V32, V64, lanes};
use super::warp::{Group, Stop, Warp};
use super::{Fault, Launch, Random};
use crate::checker::Word;
use crate::lower::Space;
use crate::memory::{self, Extent};

/// What a register holds before its first write, instead of what the previous block left there: NaN in f32 and in the upper
/// half of a pair, and far out of bounds as an index.
const UNWRITTEN: u32 = 0xffff_dead;

/// What one host thread keeps between blocks.
#[derive(Default)]
pub struct Worker {
    pub(super) warps: Vec<Warp>,
    pub(super) shared: Vec<u128>,
    pub(super) shared_bytes: u32,
    pub(super) windows: Vec<(u32, u32)>,
    /// The allocation that each instruction accessed last.
    pub(super) extents: Vec<Extent>,
    pub hits: Vec<u64>,
    pub lanes: Vec<u64>,
    pub(super) constants32: Vec<V32>,
    pub(super) constants64: Vec<V64>,
    pub(super) ctaid: [u32; 3],
    pub(super) profile: bool,
    /// Matrix products are truncated, not rounded.
    pub(super) cuts_off: bool,
    pub(super) random: Option<Random>,
    pub(super) shadow: Option<Vec<Word>>,
    /// Sectors of global memory, or wavefronts of shared memory, per instruction.
    pub transactions: Vec<u64>,
    /// Wavefronts of copies to shared memory.
    pub copied: Vec<u64>,
    /// The minimum number of transactions.
    pub ideal: Vec<u64>,
}

/// What a warp uses of its worker.
pub(super) struct Context<'a> {
    pub(super) launch: &'a Launch<'a>,
    pub(super) shared: *mut u8,
    pub(super) shared_bytes: u32,
    /// Base and bytes of each window of shared memory.
    pub(super) windows: &'a [(u32, u32)],
    pub(super) extents: &'a mut [Extent],
    pub(super) hits: &'a mut [u64],
    pub(super) lanes: &'a mut [u64],
    pub(super) transactions: &'a mut [u64],
    pub(super) copied: &'a mut [u64],
    pub(super) ideal: &'a mut [u64],
    pub(super) constants32: *const V32,
    pub(super) constants64: *const V64,
    pub(super) ctaid: [u32; 3],
    pub(super) profile: bool,
    pub(super) cuts_off: bool,
    pub(super) random: Option<&'a mut Random>,
    pub(super) shadow: Option<&'a mut [Word]>,
    pub(super) block: u32,
    /// Barriers passed by the block so far.
    pub(super) epoch: u32,
    /// Numbers of the launch, and of the block's shared memory.
    pub(super) runs: [u32; 2],
}

impl Worker {
    /// Optionally with transaction counts, a seed for schedules, and memory checks.
    pub fn new(profile: bool, seed: Option<u64>, check: bool) -> Self {
        Worker {
            profile,
            cuts_off: crate::settings::cuts_off(),
            random: seed.map(Random),
            shadow: check.then(Vec::new),
            ..Worker::default()
        }
    }

    /// Frees its buffers, which the next launch makes anew.
    pub fn empty(&mut self) {
        *self = Worker {
            profile: self.profile,
            cuts_off: self.cuts_off,
            random: self.random.take(),
            shadow: self.shadow.is_some().then(Vec::new),
            ..Worker::default()
        };
    }

    pub(super) fn prepare(&mut self, launch: &Launch) {
        let kernel = launch.kernel;
        self.extents.clear();
        self.extents.resize(kernel.code.len(), Extent::NONE);
        for counts in [&mut self.hits, &mut self.lanes, &mut self.transactions, &mut self.copied, &mut self.ideal] {
            counts.clear();
            counts.resize(kernel.code.len(), 0);
        }
        self.constants32.clear();
        self.constants32.extend(kernel.constants32.iter().map(|&value| V32([value; 32])));
        self.constants64.clear();
        self.constants64.extend(kernel.constants64.iter().map(|&value| V64([value; 32])));
        self.shared_bytes = kernel.shared + launch.dynamic;
        self.windows.clear();
        self.windows.extend([(0, 0), (kernel.shared, launch.dynamic)]);
        self.windows.extend(&kernel.windows);
        self.shared.clear();
        self.shared.resize(self.shared_bytes.div_ceil(16) as usize, !0);
        let threads = launch.block.iter().product::<u32>();
        let count = threads.div_ceil(32);
        self.warps.truncate(count as usize);
        let [predicates, narrow, wide] = kernel.registers.map(|count| count as usize);
        for number in 0..count {
            if number as usize == self.warps.len() {
                self.warps.push(Warp {
                    r: Vec::new(),
                    d: Vec::new(),
                    p: Vec::new(),
                    groups: Vec::new(),
                    live: 0,
                    waiting: false,
                    copies: Vec::new(),
                    commits: [0; 32],
                    tid: [V32([0; 32]); 3],
                    number,
                    full: 0,
                    barrier: 0,
                    steps: 0,
                    epoch: 0,
                });
            }
            let warp = &mut self.warps[number as usize];
            warp.r.resize(narrow, V32([UNWRITTEN; 32]));
            warp.d.resize(wide, V64([!0; 32]));
            warp.p.resize(predicates, 0);
            for lane in 0..32 {
                let thread = number * 32 + lane;
                warp.tid[0].0[lane as usize] = thread % launch.block[0];
                warp.tid[1].0[lane as usize] = thread / launch.block[0] % launch.block[1];
                warp.tid[2].0[lane as usize] = thread / launch.block[0] / launch.block[1];
            }
        }
    }

    pub(super) fn block(&mut self, launch: &Launch, block: u64, run: u32) -> Result<(), Fault> {
        let [x, y, _] = launch.grid.map(|extent| extent as u64);
        self.ctaid = [(block % x) as u32, (block / x % y) as u32, (block / x / y) as u32];
        self.shared.fill(!0);
        let threads = launch.block.iter().product::<u32>();
        for warp in &mut self.warps {
            let lanes = (threads - warp.number * 32).min(32);
            warp.live = if lanes == 32 { !0 } else { (1 << lanes) - 1 };
            warp.groups.clear();
            warp.groups.push(Group { pc: 0, mask: warp.live, wait: 0 });
            warp.waiting = false;
            warp.copies.clear();
            warp.commits = [0; 32];
            warp.epoch = 0;
            if self.shadow.is_some() {
                warp.r.fill(V32([UNWRITTEN; 32]));
                warp.d.fill(V64([!0; 32]));
                warp.p.fill(!0);
            }
            (warp.full, warp.steps) = (warp.live, 0);
        }
        let mut runs = [run, 0];
        if let Some(shadow) = &mut self.shadow {
            shadow.clear();
            shadow.resize(self.shared_bytes.div_ceil(4) as usize, Word::default());
            runs[1] = u32::MAX;
        }
        let mut context = Context {
            launch,
            shared: self.shared.as_mut_ptr().cast(),
            shared_bytes: self.shared_bytes,
            windows: &self.windows,
            extents: &mut self.extents,
            hits: &mut self.hits,
            lanes: &mut self.lanes,
            transactions: &mut self.transactions,
            copied: &mut self.copied,
            ideal: &mut self.ideal,
            constants32: self.constants32.as_ptr(),
            constants64: self.constants64.as_ptr(),
            ctaid: self.ctaid,
            profile: self.profile,
            cuts_off: self.cuts_off,
            random: self.random.as_mut(),
            shadow: self.shadow.as_deref_mut(),
            block: block as u32,
            epoch: 1,
            runs,
        };
        let count = self.warps.len();
        loop {
            let (mut alive, mut ready) = (false, false);
            let first = context.random.as_mut().map_or(0, |random| random.below(count as u32) as usize);
            for number in 0..count {
                let warp = &mut self.warps[(number + first) % count];
                if warp.live != 0 && !warp.waiting {
                    let quantum = context.random.as_mut().map_or(u32::MAX, |random| 1 + random.below(200));
                    match warp.run(&mut context, quantum)? {
                        Stop::Barrier => warp.waiting = true,
                        Stop::End => {}
                        Stop::Pause => ready = true,
                    }
                }
                alive |= warp.live != 0;
            }
            if !alive {
                break;
            }
            if !ready {
                meet(&self.warps, &context)?;
                context.epoch += 1;
                for warp in &mut self.warps {
                    warp.waiting = false;
                }
            }
        }
        let left = self.warps.iter().find(|warp| !warp.copies.is_empty());
        match left {
            Some(warp) => Err(format!(
                "{}: warp {} of block {:?} ends with {} copies that it never waited for",
                launch.kernel.name,
                warp.number,
                self.ctaid,
                warp.copies.len()
            )),
            None => Ok(()),
        }
    }
}

/// All warps of the block wait; checks that they are at the same barrier.
fn meet(warps: &[Warp], context: &Context) -> Result<(), Fault> {
    let Some(first) = warps.iter().find(|warp| warp.waiting) else { return Ok(()) };
    if let Some(gone) = warps.iter().find(|warp| warp.live == 0) {
        let what = format!("divergent barrier: warp {} has left without it", gone.number);
        return Err(context.fault(first, first.barrier as usize, &what));
    }
    if let Some(other) = warps.iter().find(|warp| warp.barrier != first.barrier) {
        let place = context.launch.kernel.place(other.barrier as usize);
        let what = format!("divergent barrier: warp {} waits at {place}", other.number);
        return Err(context.fault(first, first.barrier as usize, &what));
    }
    Ok(())
}

impl Context<'_> {
    #[cold]
    pub(super) fn fault(&self, warp: &Warp, pc: usize, what: &str) -> Fault {
        let kernel = &self.launch.kernel;
        let block = self.ctaid;
        format!("{}, warp {}, block {block:?}: {what}", kernel.place(pc), warp.number)
    }

    #[cold]
    pub(super) fn bad_address(
        &self,
        warp: &Warp,
        pc: usize,
        space: Space,
        addresses: &[u64; 32],
        mask: u32,
        bytes: u32,
    ) -> Fault {
        for lane in lanes(mask) {
            let address = addresses[lane];
            let wrong = match space {
                Space::Shared if address + bytes as u64 > self.shared_bytes as u64 => {
                    Some(format!("byte {address} of {} bytes of shared memory", self.shared_bytes))
                }
                Space::Global if !memory::holds(address, bytes as usize) => Some(memory::describe(address)),
                _ if !address.is_multiple_of(bytes as u64) => Some(format!("misaligned {address:#x}")),
                _ => None,
            };
            if let Some(wrong) = wrong {
                return self.fault(warp, pc, &format!("lane {lane}: {bytes} bytes at {address:#x}, {wrong}"));
            }
        }
        self.fault(warp, pc, "lanes in several allocations")
    }
}
