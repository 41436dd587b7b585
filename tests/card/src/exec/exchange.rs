//! Exchange of values between lanes.

use super::Fault;
use super::block::Context;
use super::lanes::{Files, V32, lanes};
use super::warp::Warp;
use crate::lower::Instruction;

pub(super) fn shuffle(
    warp: &Warp,
    context: &Context,
    files: &Files,
    i: &Instruction,
    at: usize,
    predicate: u32,
    masks: &V32,
) -> Result<(), Fault> {
    let (a, b, c) = (files.r(i.a), files.r(i.b), files.r(i.c));
    let (mut t, mut inside) = (V32([0; 32]), 0u32);
    for l in lanes(files.mask) {
        let lane = l as u32;
        let (by, segment, clamp) = (b.0[l] & 31, c.0[l] >> 8 & 31, c.0[l] & 31);
        let last = lane & segment | clamp & !segment;
        let (from, fits) = match i.count {
            0 => (lane.wrapping_sub(by), lane as i32 - by as i32 >= last as i32),
            1 => (lane + by, lane + by <= last),
            2 => (lane ^ by, lane ^ by <= last),
            _ => {
                let from = lane & segment | by & !segment;
                (from, from <= last)
            }
        };
        let from = if fits { from } else { lane };
        if (files.mask & masks.0[l]) >> from & 1 == 0 {
            return Err(context.fault(warp, at, &format!("lane {l} reads lane {from}, which does not take part")));
        }
        t.0[l] = a.0[from as usize];
        inside |= (fits as u32) << l;
    }
    files.set_r(i.d, &t);
    files.set_p(predicate, inside);
    Ok(())
}
