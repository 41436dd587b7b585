//! Operations: one list defines the enum, the table of PTX names, and what each does for a lane.

#[inline(always)]
pub fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}
#[inline(always)]
pub fn b(value: f32) -> u32 {
    // Every NaN produced by an operation is the canonical one.
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}
#[inline(always)]
pub fn fd(bits: u64) -> f64 {
    f64::from_bits(bits)
}
#[inline(always)]
pub fn bd(value: f64) -> u64 {
    value.to_bits()
}

/// PTX's minimum: a number wins over NaN, and -0 is below +0.
#[inline(always)]
pub fn min32(x: u32, y: u32) -> u32 {
    let (p, q) = (f(x), f(y));
    if p.is_nan() {
        return b(q);
    }
    if q.is_nan() {
        return x;
    }
    if p < q {
        x
    } else if q < p {
        y
    } else {
        x | y
    }
}
#[inline(always)]
pub fn max32(x: u32, y: u32) -> u32 {
    let (p, q) = (f(x), f(y));
    if p.is_nan() {
        return b(q);
    }
    if q.is_nan() {
        return x;
    }
    if p > q {
        x
    } else if q > p {
        y
    } else {
        x & y
    }
}
#[inline(always)]
pub fn min64(x: u64, y: u64) -> u64 {
    let (p, q) = (fd(x), fd(y));
    if p.is_nan() {
        return y;
    }
    if q.is_nan() {
        return x;
    }
    if p < q {
        x
    } else if q < p {
        y
    } else {
        x | y
    }
}
#[inline(always)]
pub fn max64(x: u64, y: u64) -> u64 {
    let (p, q) = (fd(x), fd(y));
    if p.is_nan() {
        return y;
    }
    if q.is_nan() {
        return x;
    }
    if p > q {
        x
    } else if q > p {
        y
    } else {
        x & y
    }
}
#[inline(always)]
pub fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let both = (b as u64) << 32 | a as u64;
    let mut result = 0;
    for i in 0..4 {
        let s = selector >> (4 * i);
        let byte = (both >> (8 * (s & 7))) as u32 & 0xff;
        let byte = if s & 8 != 0 { (byte >> 7) * 0xff } else { byte };
        result |= byte << (8 * i);
    }
    result
}
#[inline(always)]
pub fn bfi(a: u32, b: u32, position: u32, length: u32) -> u32 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= 32 || length == 0 {
        return b;
    }
    let mask = (if length >= 32 { !0 } else { (1u32 << length) - 1 }) << position;
    (a << position) & mask | b & !mask
}
#[inline(always)]
pub fn rcp_approx(x: u64) -> u64 {
    let value = fd(x & 0xffff_ffff_0000_0000);
    let value = if value.is_subnormal() { 0f64.copysign(value) } else { value };
    let result = 1.0 / value;
    let result = if result.is_subnormal() { 0f64.copysign(result) } else { result };
    bd(result) & 0xffff_ffff_0000_0000
}

/// Operations that are not a function of one lane alone, then the rest as named in [`TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[rustfmt::skip]
#[allow(non_camel_case_types)]
pub enum Op {
    Branch, Return, Load, Store, LoadParameter, AtomicAdd, AtomicCas, Shuffle, Ballot, Match, Barrier, WarpBarrier,
    CopyAsync, Commit, WaitGroup, LoadMatrix, Multiply, Special, Pack, Unpack, SetPredicate,
    Adds32, Subs32, Muls32, Mads32, Addu32, Subu32, Mulu32, Madu32, Adds64, Subs64, Muls64, Mads64, Addu64,
    Subu64, Mulu64, Madu64, MulHiu32, MulHis32, MulHiu64, MulWideu16, MulWideu32, MulWides32, Divu32, Divs32,
    Remu32, Rems32, Divu64, Remu64, Minu32, Mins32, Minu64, Mins64, Minf32, Minf64, Maxu32, Maxs32, Maxu64,
    Maxs64, Maxf32, Maxf64, Negs32, Negs64, Abss32, Andb32, Andb16, Andb64, Andpred, Orb32, Orb16, Orb64, Orpred,
    Xorb32, Xorb16, Xorb64, Xorpred, Notb32, Notb16, Notb64, Notpred, Shlb32, Shru32, Shrb32, Shrs32, Shlb64,
    Shru64, Shrb64, Shrs64, ShfR, ShfL, Bfi, Prmt, Popc, Brev, Clz, BfindShift, Addrnf32, Addrnf64, Addf32,
    Addf64, Subrnf32, Subrnf64, Subf32, Subf64, Mulrnf32, Mulrnf64, Mulf32, Mulf64, Divrnf32, Divrnf64, Fmaf32,
    Fmaf64, Rcpf32, Rcpf64, RcpApprox, Sqrtf32, Sqrtf64, Negf32, Negf64, Absf32, Absf64, Cvt_u64_u32, Cvt_s64_s32,
    Cvt_u32_u64, Cvt_s32_s64, Cvt_u16_u32, Cvt_u32_u16, Cvt_u16_u64, Cvt_u64_u16, Cvt_f64_f32, Cvt_rn_f32_f64,
    Cvt_rn_f32_u32, Cvt_rn_f32_s32, Cvt_rn_f64_u32, Cvt_rn_f64_s32, Cvt_rn_f32_u64, Cvt_rn_f64_u64,
    Cvt_rn_f64_s64, Cvt_rmi_f32_f32, Cvt_rpi_f32_f32, Cvt_rzi_f32_f32, Cvt_rzi_f64_f64, Cvt_rzi_s32_f32,
    Cvt_rzi_u32_f32, Cvt_rzi_u32_f64, Cvt_rzi_u64_f64, Cvt_f32_f16, Cvt_rn_f16_f32, Cvt_rn_bf16_f32,
    Cvt_rn_f16x2_f32, Cvt_rn_bf16x2_f32, CvtaGlobal, CvtaToShared, CvtaShared, Movb32, Movu32, Movs32, Movf32, Movb16, Movu16,
    Movb64, Movu64, Movs64, Movf64, Setpeqs32, Setpnes32, Setplts32, Setples32, Setpgts32, Setpges32, Setpequ32,
    Setpneu32, Setpltu32, Setpleu32, Setpgtu32, Setpgeu32, Setpeqb32, Setpneb32, Setpeqs64, Setpnes64, Setplts64,
    Setples64, Setpgts64, Setpges64, Setpequ64, Setpneu64, Setpltu64, Setpleu64, Setpgtu64, Setpgeu64, Setpeqb64,
    Setpneb64, Setpeqs16, Setpnes16, Setplts16, Setples16, Setpgts16, Setpges16, Setpequ16, Setpneu16, Setpltu16,
    Setpleu16, Setpgtu16, Setpgeu16, Setpeqb16, Setpneb16, Setpeqf32, Setpequf32_, Setpnef32, Setpneuf32_,
    Setpltf32, Setpltuf32_, Setplef32, Setpleuf32_, Setpgtf32, Setpgtuf32_, Setpgef32, Setpgeuf32_, Setpnanf32,
    Setpnumf32, Setpeqf64, Setpequf64_, Setpnef64, Setpneuf64_, Setpltf64, Setpltuf64_, Setplef64, Setpleuf64_,
    Setpgtf64, Setpgtuf64_, Setpgef64, Setpgeuf64_, Setpnanf64, Setpnumf64, Selpb32, Selpu32, Selps32, Selpf32,
    Selpb16, Selpu16, Selps16, Selpb64, Selpu64, Selps64, Selpf64,
}

/// Calls `$run!(Op, "PTX name", signature, function)` for each operation on lanes; the signature lists the result and the
/// operands as p (predicate), r (32 bits), d (64 bits).
#[macro_export]
macro_rules! operations {
    ($each:ident) => {
        $each! {
            Adds32 r_rr "add.s32" { |a, b| a.wrapping_add(b) }
            Subs32 r_rr "sub.s32" { |a, b| a.wrapping_sub(b) }
            Muls32 r_rr "mul.lo.s32" { |a, b| a.wrapping_mul(b) }
            Mads32 r_rrr "mad.lo.s32" { |a, b, c| a.wrapping_mul(b).wrapping_add(c) }
            Addu32 r_rr "add.u32" { |a, b| a.wrapping_add(b) }
            Subu32 r_rr "sub.u32" { |a, b| a.wrapping_sub(b) }
            Mulu32 r_rr "mul.lo.u32" { |a, b| a.wrapping_mul(b) }
            Madu32 r_rrr "mad.lo.u32" { |a, b, c| a.wrapping_mul(b).wrapping_add(c) }
            Adds64 d_dd "add.s64" { |a, b| a.wrapping_add(b) }
            Subs64 d_dd "sub.s64" { |a, b| a.wrapping_sub(b) }
            Muls64 d_dd "mul.lo.s64" { |a, b| a.wrapping_mul(b) }
            Mads64 d_ddd "mad.lo.s64" { |a, b, c| a.wrapping_mul(b).wrapping_add(c) }
            Addu64 d_dd "add.u64" { |a, b| a.wrapping_add(b) }
            Subu64 d_dd "sub.u64" { |a, b| a.wrapping_sub(b) }
            Mulu64 d_dd "mul.lo.u64" { |a, b| a.wrapping_mul(b) }
            Madu64 d_ddd "mad.lo.u64" { |a, b, c| a.wrapping_mul(b).wrapping_add(c) }
            MulHiu32 r_rr "mul.hi.u32" { |a, b| ((a as u64 * b as u64) >> 32) as u32 }
            MulHis32 r_rr "mul.hi.s32" { |a, b| ((a as i32 as i64 * b as i32 as i64) >> 32) as u32 }
            MulHiu64 d_dd "mul.hi.u64" { |a, b| ((a as u128 * b as u128) >> 64) as u64 }
            MulWideu16 r_rr "mul.wide.u16" { |a, b| (a & 0xffff) * (b & 0xffff) }
            MulWideu32 d_rr "mul.wide.u32" { |a, b| a as u64 * b as u64 }
            MulWides32 d_rr "mul.wide.s32" { |a, b| (a as i32 as i64 * b as i32 as i64) as u64 }
            Divu32 r_rr "div.u32" { |a, b| if b == 0 { !0 } else { a / b } }
            Divs32 r_rr "div.s32" { |a, b| if b == 0 { !0 } else { (a as i32).wrapping_div(b as i32) as u32 } }
            Remu32 r_rr "rem.u32" { |a, b| if b == 0 { a } else { a % b } }
            Rems32 r_rr "rem.s32" { |a, b| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 } }
            Divu64 d_dd "div.u64" { |a, b| if b == 0 { !0 } else { a / b } }
            Remu64 d_dd "rem.u64" { |a, b| if b == 0 { a } else { a % b } }
            Minu32 r_rr "min.u32" { |a, b| a.min(b) }
            Mins32 r_rr "min.s32" { |a, b| (a as i32).min(b as i32) as u32 }
            Minu64 d_dd "min.u64" { |a, b| a.min(b) }
            Mins64 d_dd "min.s64" { |a, b| (a as i64).min(b as i64) as u64 }
            Minf32 r_rr "min.f32" { |a, b| min32(a, b) }
            Minf64 d_dd "min.f64" { |a, b| min64(a, b) }
            Maxu32 r_rr "max.u32" { |a, b| a.max(b) }
            Maxs32 r_rr "max.s32" { |a, b| (a as i32).max(b as i32) as u32 }
            Maxu64 d_dd "max.u64" { |a, b| a.max(b) }
            Maxs64 d_dd "max.s64" { |a, b| (a as i64).max(b as i64) as u64 }
            Maxf32 r_rr "max.f32" { |a, b| max32(a, b) }
            Maxf64 d_dd "max.f64" { |a, b| max64(a, b) }
            Negs32 r_r "neg.s32" { |a| a.wrapping_neg() }
            Negs64 d_d "neg.s64" { |a| a.wrapping_neg() }
            Abss32 r_r "abs.s32" { |a| (a as i32).wrapping_abs() as u32 }
            Andb32 r_rr "and.b32" { |a, b| a & b }
            Andb16 r_rr "and.b16" { |a, b| a & b }
            Andb64 d_dd "and.b64" { |a, b| a & b }
            Andpred p_pp "and.pred" { |a, b| a & b }
            Orb32 r_rr "or.b32" { |a, b| a | b }
            Orb16 r_rr "or.b16" { |a, b| a | b }
            Orb64 d_dd "or.b64" { |a, b| a | b }
            Orpred p_pp "or.pred" { |a, b| a | b }
            Xorb32 r_rr "xor.b32" { |a, b| a ^ b }
            Xorb16 r_rr "xor.b16" { |a, b| a ^ b }
            Xorb64 d_dd "xor.b64" { |a, b| a ^ b }
            Xorpred p_pp "xor.pred" { |a, b| a ^ b }
            Notb32 r_r "not.b32" { |a| !a }
            Notb16 r_r "not.b16" { |a| !a & 0xffff }
            Notb64 d_d "not.b64" { |a| !a }
            Notpred p_p "not.pred" { |a| !a }
            Shlb32 r_rr "shl.b32" { |a, b| if b > 31 { 0 } else { a << b } }
            Shru32 r_rr "shr.u32" { |a, b| if b > 31 { 0 } else { a >> b } }
            Shrb32 r_rr "shr.b32" { |a, b| if b > 31 { 0 } else { a >> b } }
            Shrs32 r_rr "shr.s32" { |a, b| ((a as i32) >> b.min(31)) as u32 }
            Shlb64 d_dr "shl.b64" { |a, b| if b > 63 { 0 } else { a << b } }
            Shru64 d_dr "shr.u64" { |a, b| if b > 63 { 0 } else { a >> b } }
            Shrb64 d_dr "shr.b64" { |a, b| if b > 63 { 0 } else { a >> b } }
            Shrs64 d_dr "shr.s64" { |a, b| ((a as i64) >> b.min(63)) as u64 }
            ShfR r_rrr "shf.r.wrap.b32" { |a, b, c| (((b as u64) << 32 | a as u64) >> (c & 31)) as u32 }
            ShfL r_rrr "shf.l.wrap.b32" { |a, b, c| (((b as u64) << 32 | a as u64) << (c & 31) >> 32) as u32 }
            Bfi r_rrrr "bfi.b32" { |a, b, c, e| bfi(a, b, c, e) }
            Prmt r_rrr "prmt.b32" { |a, b, c| prmt(a, b, c) }
            Popc r_r "popc.b32" { |a| a.count_ones() }
            Brev r_r "brev.b32" { |a| a.reverse_bits() }
            Clz r_r "clz.b32" { |a| a.leading_zeros() }
            BfindShift r_r "bfind.shiftamt.u32" { |a| if a == 0 { !0 } else { a.leading_zeros() } }
            Addrnf32 r_rr "add.rn.f32" { |a, c| b(f(a) + f(c)) }
            Addrnf64 d_dd "add.rn.f64" { |a, c| bd(fd(a) + fd(c)) }
            Addf32 r_rr "add.f32" { |a, c| b(f(a) + f(c)) }
            Addf64 d_dd "add.f64" { |a, c| bd(fd(a) + fd(c)) }
            Subrnf32 r_rr "sub.rn.f32" { |a, c| b(f(a) - f(c)) }
            Subrnf64 d_dd "sub.rn.f64" { |a, c| bd(fd(a) - fd(c)) }
            Subf32 r_rr "sub.f32" { |a, c| b(f(a) - f(c)) }
            Subf64 d_dd "sub.f64" { |a, c| bd(fd(a) - fd(c)) }
            Mulrnf32 r_rr "mul.rn.f32" { |a, c| b(f(a) * f(c)) }
            Mulrnf64 d_dd "mul.rn.f64" { |a, c| bd(fd(a) * fd(c)) }
            Mulf32 r_rr "mul.f32" { |a, c| b(f(a) * f(c)) }
            Mulf64 d_dd "mul.f64" { |a, c| bd(fd(a) * fd(c)) }
            Divrnf32 r_rr "div.rn.f32" { |a, c| b(f(a) / f(c)) }
            Divrnf64 d_dd "div.rn.f64" { |a, c| bd(fd(a) / fd(c)) }
            Fmaf32 r_rrr "fma.rn.f32" { |a, c, e| b(f(a).mul_add(f(c), f(e))) }
            Fmaf64 d_ddd "fma.rn.f64" { |a, c, e| bd(fd(a).mul_add(fd(c), fd(e))) }
            Rcpf32 r_r "rcp.rn.f32" { |a| b(1.0 / f(a)) }
            Rcpf64 d_d "rcp.rn.f64" { |a| bd(1.0 / fd(a)) }
            RcpApprox d_d "rcp.approx.ftz.f64" { |a| rcp_approx(a) }
            Sqrtf32 r_r "sqrt.rn.f32" { |a| b(f(a).sqrt()) }
            Sqrtf64 d_d "sqrt.rn.f64" { |a| bd(fd(a).sqrt()) }
            Negf32 r_r "neg.f32" { |a| a ^ 0x8000_0000 }
            Negf64 d_d "neg.f64" { |a| a ^ 1 << 63 }
            Absf32 r_r "abs.f32" { |a| a & 0x7fff_ffff }
            Absf64 d_d "abs.f64" { |a| a & !(1 << 63) }
            Cvt_u64_u32 d_r "cvt.u64.u32" { |a| a as u64 }
            Cvt_s64_s32 d_r "cvt.s64.s32" { |a| a as i32 as i64 as u64 }
            Cvt_u32_u64 r_d "cvt.u32.u64" { |a| a as u32 }
            Cvt_s32_s64 r_d "cvt.s32.s64" { |a| a as u32 }
            Cvt_u16_u32 r_r "cvt.u16.u32" { |a| a & 0xffff }
            Cvt_u32_u16 r_r "cvt.u32.u16" { |a| a & 0xffff }
            Cvt_u16_u64 r_d "cvt.u16.u64" { |a| a as u32 & 0xffff }
            Cvt_u64_u16 d_r "cvt.u64.u16" { |a| (a & 0xffff) as u64 }
            Cvt_f64_f32 d_r "cvt.f64.f32" { |a| bd(f(a) as f64) }
            Cvt_rn_f32_f64 r_d "cvt.rn.f32.f64" { |a| b(fd(a) as f32) }
            Cvt_rn_f32_u32 r_r "cvt.rn.f32.u32" { |a| b(a as f32) }
            Cvt_rn_f32_s32 r_r "cvt.rn.f32.s32" { |a| b(a as i32 as f32) }
            Cvt_rn_f64_u32 d_r "cvt.rn.f64.u32" { |a| bd(a as f64) }
            Cvt_rn_f64_s32 d_r "cvt.rn.f64.s32" { |a| bd(a as i32 as f64) }
            Cvt_rn_f32_u64 r_d "cvt.rn.f32.u64" { |a| b(a as f32) }
            Cvt_rn_f64_u64 d_d "cvt.rn.f64.u64" { |a| bd(a as f64) }
            Cvt_rn_f64_s64 d_d "cvt.rn.f64.s64" { |a| bd(a as i64 as f64) }
            Cvt_rmi_f32_f32 r_r "cvt.rmi.f32.f32" { |a| b(f(a).floor()) }
            Cvt_rpi_f32_f32 r_r "cvt.rpi.f32.f32" { |a| b(f(a).ceil()) }
            Cvt_rzi_f32_f32 r_r "cvt.rzi.f32.f32" { |a| b(f(a).trunc()) }
            Cvt_rzi_f64_f64 d_d "cvt.rzi.f64.f64" { |a| bd(fd(a).trunc()) }
            Cvt_rzi_s32_f32 r_r "cvt.rzi.s32.f32" { |a| f(a) as i32 as u32 }
            Cvt_rzi_u32_f32 r_r "cvt.rzi.u32.f32" { |a| f(a) as u32 }
            Cvt_rzi_u32_f64 r_d "cvt.rzi.u32.f64" { |a| fd(a) as u32 }
            Cvt_rzi_u64_f64 d_d "cvt.rzi.u64.f64" { |a| fd(a) as u64 }
            Cvt_f32_f16 r_r "cvt.f32.f16" { |a| f32_of_f16(a as u16).to_bits() }
            Cvt_rn_f16_f32 r_r "cvt.rn.f16.f32" { |a| f16_of_f32(f(a)) as u32 }
            Cvt_rn_bf16_f32 r_r "cvt.rn.bf16.f32" { |a| bf16_of_f32(f(a)) as u32 }
            Cvt_rn_f16x2_f32 r_rr "cvt.rn.f16x2.f32" { |a, c| (f16_of_f32(f(a)) as u32) << 16 | f16_of_f32(f(c)) as u32 }
            Cvt_rn_bf16x2_f32 r_rr "cvt.rn.bf16x2.f32" { |a, c| (bf16_of_f32(f(a)) as u32) << 16 | bf16_of_f32(f(c)) as u32 }
            CvtaGlobal d_d "cvta.to.global.u64" { |a| a }
            CvtaToShared d_d "cvta.to.shared.u64" { |a| if a >> 56 & 1 != 0 { a & !(1 << 56) } else { !0 } }
            CvtaShared d_d "cvta.shared.u64" { |a| a | 1 << 56 }
            Movb32 r_r "mov.b32" { |a| a }
            Movu32 r_r "mov.u32" { |a| a }
            Movs32 r_r "mov.s32" { |a| a }
            Movf32 r_r "mov.f32" { |a| a }
            Movb16 r_r "mov.b16" { |a| a }
            Movu16 r_r "mov.u16" { |a| a }
            Movb64 d_d "mov.b64" { |a| a }
            Movu64 d_d "mov.u64" { |a| a }
            Movs64 d_d "mov.s64" { |a| a }
            Movf64 d_d "mov.f64" { |a| a }
            Setpeqs32 p_rr "setp.eq.s32" { |a, c| (a as i32) == (c as i32) }
            Setpnes32 p_rr "setp.ne.s32" { |a, c| (a as i32) != (c as i32) }
            Setplts32 p_rr "setp.lt.s32" { |a, c| (a as i32) < (c as i32) }
            Setples32 p_rr "setp.le.s32" { |a, c| (a as i32) <= (c as i32) }
            Setpgts32 p_rr "setp.gt.s32" { |a, c| (a as i32) > (c as i32) }
            Setpges32 p_rr "setp.ge.s32" { |a, c| (a as i32) >= (c as i32) }
            Setpequ32 p_rr "setp.eq.u32" { |a, c| (a) == (c) }
            Setpneu32 p_rr "setp.ne.u32" { |a, c| (a) != (c) }
            Setpltu32 p_rr "setp.lt.u32" { |a, c| (a) < (c) }
            Setpleu32 p_rr "setp.le.u32" { |a, c| (a) <= (c) }
            Setpgtu32 p_rr "setp.gt.u32" { |a, c| (a) > (c) }
            Setpgeu32 p_rr "setp.ge.u32" { |a, c| (a) >= (c) }
            Setpeqb32 p_rr "setp.eq.b32" { |a, c| (a) == (c) }
            Setpneb32 p_rr "setp.ne.b32" { |a, c| (a) != (c) }
            Setpeqs64 p_dd "setp.eq.s64" { |a, c| (a as i64) == (c as i64) }
            Setpnes64 p_dd "setp.ne.s64" { |a, c| (a as i64) != (c as i64) }
            Setplts64 p_dd "setp.lt.s64" { |a, c| (a as i64) < (c as i64) }
            Setples64 p_dd "setp.le.s64" { |a, c| (a as i64) <= (c as i64) }
            Setpgts64 p_dd "setp.gt.s64" { |a, c| (a as i64) > (c as i64) }
            Setpges64 p_dd "setp.ge.s64" { |a, c| (a as i64) >= (c as i64) }
            Setpequ64 p_dd "setp.eq.u64" { |a, c| (a) == (c) }
            Setpneu64 p_dd "setp.ne.u64" { |a, c| (a) != (c) }
            Setpltu64 p_dd "setp.lt.u64" { |a, c| (a) < (c) }
            Setpleu64 p_dd "setp.le.u64" { |a, c| (a) <= (c) }
            Setpgtu64 p_dd "setp.gt.u64" { |a, c| (a) > (c) }
            Setpgeu64 p_dd "setp.ge.u64" { |a, c| (a) >= (c) }
            Setpeqb64 p_dd "setp.eq.b64" { |a, c| (a) == (c) }
            Setpneb64 p_dd "setp.ne.b64" { |a, c| (a) != (c) }
            Setpeqs16 p_rr "setp.eq.s16" { |a, c| (a as i16) == (c as i16) }
            Setpnes16 p_rr "setp.ne.s16" { |a, c| (a as i16) != (c as i16) }
            Setplts16 p_rr "setp.lt.s16" { |a, c| (a as i16) < (c as i16) }
            Setples16 p_rr "setp.le.s16" { |a, c| (a as i16) <= (c as i16) }
            Setpgts16 p_rr "setp.gt.s16" { |a, c| (a as i16) > (c as i16) }
            Setpges16 p_rr "setp.ge.s16" { |a, c| (a as i16) >= (c as i16) }
            Setpequ16 p_rr "setp.eq.u16" { |a, c| (a as u16) == (c as u16) }
            Setpneu16 p_rr "setp.ne.u16" { |a, c| (a as u16) != (c as u16) }
            Setpltu16 p_rr "setp.lt.u16" { |a, c| (a as u16) < (c as u16) }
            Setpleu16 p_rr "setp.le.u16" { |a, c| (a as u16) <= (c as u16) }
            Setpgtu16 p_rr "setp.gt.u16" { |a, c| (a as u16) > (c as u16) }
            Setpgeu16 p_rr "setp.ge.u16" { |a, c| (a as u16) >= (c as u16) }
            Setpeqb16 p_rr "setp.eq.b16" { |a, c| (a as u16) == (c as u16) }
            Setpneb16 p_rr "setp.ne.b16" { |a, c| (a as u16) != (c as u16) }
            Setpeqf32 p_rr "setp.eq.f32" { |a, c| f(a) == f(c) }
            Setpequf32_ p_rr "setp.equ.f32" { |a, c| !(f(a) < f(c) || f(a) > f(c)) }
            Setpnef32 p_rr "setp.ne.f32" { |a, c| f(a) < f(c) || f(a) > f(c) }
            Setpneuf32_ p_rr "setp.neu.f32" { |a, c| f(a) != f(c) }
            Setpltf32 p_rr "setp.lt.f32" { |a, c| f(a) < f(c) }
            Setpltuf32_ p_rr "setp.ltu.f32" { |a, c| !(f(a) >= f(c)) }
            Setplef32 p_rr "setp.le.f32" { |a, c| f(a) <= f(c) }
            Setpleuf32_ p_rr "setp.leu.f32" { |a, c| !(f(a) > f(c)) }
            Setpgtf32 p_rr "setp.gt.f32" { |a, c| f(a) > f(c) }
            Setpgtuf32_ p_rr "setp.gtu.f32" { |a, c| !(f(a) <= f(c)) }
            Setpgef32 p_rr "setp.ge.f32" { |a, c| f(a) >= f(c) }
            Setpgeuf32_ p_rr "setp.geu.f32" { |a, c| !(f(a) < f(c)) }
            Setpnanf32 p_rr "setp.nan.f32" { |a, c| f(a).is_nan() || f(c).is_nan() }
            Setpnumf32 p_rr "setp.num.f32" { |a, c| !f(a).is_nan() && !f(c).is_nan() }
            Setpeqf64 p_dd "setp.eq.f64" { |a, c| fd(a) == fd(c) }
            Setpequf64_ p_dd "setp.equ.f64" { |a, c| !(fd(a) < fd(c) || fd(a) > fd(c)) }
            Setpnef64 p_dd "setp.ne.f64" { |a, c| fd(a) < fd(c) || fd(a) > fd(c) }
            Setpneuf64_ p_dd "setp.neu.f64" { |a, c| fd(a) != fd(c) }
            Setpltf64 p_dd "setp.lt.f64" { |a, c| fd(a) < fd(c) }
            Setpltuf64_ p_dd "setp.ltu.f64" { |a, c| !(fd(a) >= fd(c)) }
            Setplef64 p_dd "setp.le.f64" { |a, c| fd(a) <= fd(c) }
            Setpleuf64_ p_dd "setp.leu.f64" { |a, c| !(fd(a) > fd(c)) }
            Setpgtf64 p_dd "setp.gt.f64" { |a, c| fd(a) > fd(c) }
            Setpgtuf64_ p_dd "setp.gtu.f64" { |a, c| !(fd(a) <= fd(c)) }
            Setpgef64 p_dd "setp.ge.f64" { |a, c| fd(a) >= fd(c) }
            Setpgeuf64_ p_dd "setp.geu.f64" { |a, c| !(fd(a) < fd(c)) }
            Setpnanf64 p_dd "setp.nan.f64" { |a, c| fd(a).is_nan() || fd(c).is_nan() }
            Setpnumf64 p_dd "setp.num.f64" { |a, c| !fd(a).is_nan() && !fd(c).is_nan() }
            Selpb32 r_rrp "selp.b32" { () }
            Selpu32 r_rrp "selp.u32" { () }
            Selps32 r_rrp "selp.s32" { () }
            Selpf32 r_rrp "selp.f32" { () }
            Selpb16 r_rrp "selp.b16" { () }
            Selpu16 r_rrp "selp.u16" { () }
            Selps16 r_rrp "selp.s16" { () }
            Selpb64 d_ddp "selp.b64" { () }
            Selpu64 d_ddp "selp.u64" { () }
            Selps64 d_ddp "selp.s64" { () }
            Selpf64 d_ddp "selp.f64" { () }
        }
    };
}

macro_rules! table {
    ($($name:ident $signature:ident $text:literal { $function:expr })*) => {
        pub const TABLE: &[(&str, Op, &str)] = &[$(($text, Op::$name, stringify!($signature))),*];
    };
}
operations!(table);
