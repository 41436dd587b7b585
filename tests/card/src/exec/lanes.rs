//! Values of a warp's 32 lanes, and how an instruction reads and writes registers.

use crate::lower::{CONSTANT, Instruction};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct V32(pub [u32; 32]);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct V64(pub [u64; 32]);

#[inline(always)]
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros();
        mask &= mask - 1;
        Some(lane as usize)
    })
}

#[inline(always)]
pub(super) fn blend32(target: &mut V32, value: &V32, mask: u32) {
    if mask == !0 {
        *target = *value;
    } else {
        for i in 0..32 {
            target.0[i] = if mask >> i & 1 != 0 { value.0[i] } else { target.0[i] };
        }
    }
}

#[inline(always)]
pub(super) fn blend64(target: &mut V64, value: &V64, mask: u32) {
    if mask == !0 {
        *target = *value;
    } else {
        for i in 0..32 {
            target.0[i] = if mask >> i & 1 != 0 { value.0[i] } else { target.0[i] };
        }
    }
}

/// Registers and constants as named by the instruction.
#[derive(Clone, Copy)]
pub(super) struct Files {
    pub(super) r: *mut V32,
    pub(super) d: *mut V64,
    pub(super) p: *mut u32,
    pub(super) constants32: *const V32,
    pub(super) constants64: *const V64,
    pub(super) mask: u32,
}

impl Files {
    // SAFETY of all: lowering made the indices for files of these sizes.
    #[inline(always)]
    pub(super) fn r(&self, index: u32) -> V32 {
        unsafe {
            if index & CONSTANT != 0 {
                *self.constants32.add((index & !CONSTANT) as usize)
            } else {
                *self.r.add(index as usize)
            }
        }
    }
    #[inline(always)]
    pub(super) fn d(&self, index: u32) -> V64 {
        unsafe {
            if index & CONSTANT != 0 {
                *self.constants64.add((index & !CONSTANT) as usize)
            } else {
                *self.d.add(index as usize)
            }
        }
    }
    #[inline(always)]
    pub(super) fn p(&self, index: u32) -> u32 {
        unsafe { *self.p.add(index as usize) }
    }
    #[inline(always)]
    pub(super) fn set_r(&self, index: u32, value: &V32) {
        unsafe { blend32(&mut *self.r.add(index as usize), value, self.mask) }
    }
    #[inline(always)]
    pub(super) fn set_d(&self, index: u32, value: &V64) {
        unsafe { blend64(&mut *self.d.add(index as usize), value, self.mask) }
    }
    #[inline(always)]
    pub(super) fn set_p(&self, index: u32, value: u32) {
        unsafe {
            let p = &mut *self.p.add(index as usize);
            *p = *p & !self.mask | value & self.mask;
        }
    }

    #[inline(always)]
    pub(super) fn r_r(&self, i: &Instruction, g: impl Fn(u32) -> u32) {
        let a = self.r(i.a);
        let mut t = V32([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l]);
        }
        self.set_r(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn r_rr(&self, i: &Instruction, g: impl Fn(u32, u32) -> u32) {
        let (a, b) = (self.r(i.a), self.r(i.b));
        let mut t = V32([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l]);
        }
        self.set_r(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn r_rrr(&self, i: &Instruction, g: impl Fn(u32, u32, u32) -> u32) {
        let (a, b, c) = (self.r(i.a), self.r(i.b), self.r(i.c));
        let mut t = V32([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l], c.0[l]);
        }
        self.set_r(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn r_rrrr(&self, i: &Instruction, g: impl Fn(u32, u32, u32, u32) -> u32) {
        let (a, b, c, e) = (self.r(i.a), self.r(i.b), self.r(i.c), self.r(i.x));
        let mut t = V32([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l], c.0[l], e.0[l]);
        }
        self.set_r(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_d(&self, i: &Instruction, g: impl Fn(u64) -> u64) {
        let a = self.d(i.a);
        let mut t = V64([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l]);
        }
        self.set_d(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_dd(&self, i: &Instruction, g: impl Fn(u64, u64) -> u64) {
        let (a, b) = (self.d(i.a), self.d(i.b));
        let mut t = V64([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l]);
        }
        self.set_d(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_ddd(&self, i: &Instruction, g: impl Fn(u64, u64, u64) -> u64) {
        let (a, b, c) = (self.d(i.a), self.d(i.b), self.d(i.c));
        let mut t = V64([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l], c.0[l]);
        }
        self.set_d(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_r(&self, i: &Instruction, g: impl Fn(u32) -> u64) {
        let a = self.r(i.a);
        let mut t = V64([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l]);
        }
        self.set_d(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_rr(&self, i: &Instruction, g: impl Fn(u32, u32) -> u64) {
        let (a, b) = (self.r(i.a), self.r(i.b));
        let mut t = V64([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l]);
        }
        self.set_d(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_dr(&self, i: &Instruction, g: impl Fn(u64, u32) -> u64) {
        let (a, b) = (self.d(i.a), self.r(i.b));
        let mut t = V64([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l], b.0[l]);
        }
        self.set_d(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn r_d(&self, i: &Instruction, g: impl Fn(u64) -> u32) {
        let a = self.d(i.a);
        let mut t = V32([0; 32]);
        for l in 0..32 {
            t.0[l] = g(a.0[l]);
        }
        self.set_r(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn p_rr(&self, i: &Instruction, g: impl Fn(u32, u32) -> bool) {
        let (a, b) = (self.r(i.a), self.r(i.b));
        let mut t = 0;
        for l in 0..32 {
            t |= (g(a.0[l], b.0[l]) as u32) << l;
        }
        self.set_p(i.d, t);
    }
    #[inline(always)]
    pub(super) fn p_dd(&self, i: &Instruction, g: impl Fn(u64, u64) -> bool) {
        let (a, b) = (self.d(i.a), self.d(i.b));
        let mut t = 0;
        for l in 0..32 {
            t |= (g(a.0[l], b.0[l]) as u32) << l;
        }
        self.set_p(i.d, t);
    }
    #[inline(always)]
    pub(super) fn p_p(&self, i: &Instruction, g: impl Fn(u32) -> u32) {
        self.set_p(i.d, g(self.p(i.a)));
    }
    #[inline(always)]
    pub(super) fn p_pp(&self, i: &Instruction, g: impl Fn(u32, u32) -> u32) {
        self.set_p(i.d, g(self.p(i.a), self.p(i.b)));
    }
    #[inline(always)]
    pub(super) fn r_rrp(&self, i: &Instruction, (): ()) {
        let (a, b, p) = (self.r(i.a), self.r(i.b), self.p(i.c));
        let mut t = b;
        blend32(&mut t, &a, p);
        self.set_r(i.d, &t);
    }
    #[inline(always)]
    pub(super) fn d_ddp(&self, i: &Instruction, (): ()) {
        let (a, b, p) = (self.d(i.a), self.d(i.b), self.p(i.c));
        let mut t = b;
        blend64(&mut t, &a, p);
        self.set_d(i.d, &t);
    }

    /// One address per lane; inactive lanes get that of an active one.
    #[inline(always)]
    pub(super) fn addresses(&self, register: u32, wide: bool, offset: u32) -> [u64; 32] {
        let offset = offset as i32 as i64 as u64;
        let mut t = [0; 32];
        if wide {
            let a = self.d(register);
            for l in 0..32 {
                t[l] = a.0[l].wrapping_add(offset);
            }
        } else {
            let a = self.r(register);
            for l in 0..32 {
                t[l] = a.0[l].wrapping_add(offset as u32) as u64;
            }
        }
        if self.mask != !0 {
            let first = t[self.mask.trailing_zeros() as usize & 31];
            for l in 0..32 {
                t[l] = if self.mask >> l & 1 != 0 { t[l] } else { first };
            }
        }
        t
    }
}
