//! NEON, of every 64-bit ARM CPU. It has no instructions for `f16` that stable Rust can name, so
//! those conversions go by `half`.

// One argument serves every block: see "SAFETY" below.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::aarch64::*;

use half::f16;

use super::{Arch, Vector, Words};

/// The instruction set.
#[derive(Debug)]
pub struct Neon;

impl Arch for Neon {
    type F32 = F32;
    type F64 = F64;
}

/// 4 lanes.
#[derive(Clone, Copy, Debug)]
pub struct F32(float32x4_t);

/// 2 lanes.
#[derive(Clone, Copy, Debug)]
pub struct F64(float64x2_t);

/// 4 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Words4(uint32x4_t);

/// 2 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Words2(uint32x2_t);

// SAFETY, of every block below: the caller of each function promises the instruction set and good
// pointers; the loads and stores need no alignment but that of their elements.

#[rustfmt::skip]
impl Vector for F32 {
    type Scalar = f32;
    type Mask = uint32x4_t;
    type Words = Words4;
    const LANES: usize = 4;

    #[inline(always)] unsafe fn splat(x: f32) -> Self { unsafe { Self(vdupq_n_f32(x)) } }
    #[inline(always)] unsafe fn load(from: *const f32) -> Self { unsafe { Self(vld1q_f32(from)) } }
    #[inline(always)] unsafe fn load_f16(from: *const u16) -> Self {
        unsafe {
            let lanes: [f32; 4] = std::array::from_fn(|i| f16::from_bits(*from.add(i)).to_f32());
            Self::load(lanes.as_ptr())
        }
    }
    #[inline(always)] unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe { Self(vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from)))) }
    }
    #[inline(always)] unsafe fn store(self, to: *mut f32) { unsafe { vst1q_f32(to, self.0) } }
    #[inline(always)] unsafe fn store_f16(self, to: *mut u16) {
        unsafe {
            let mut lanes = [0.0; 4];
            self.store(lanes.as_mut_ptr());
            for (i, &lane) in lanes.iter().enumerate() {
                *to.add(i) = f16::from_f32(lane).to_bits();
            }
        }
    }
    #[inline(always)] unsafe fn store_bf16(self, to: *mut u16) {
        unsafe { vst1_u16(to, vshrn_n_u32::<16>(vreinterpretq_u32_f32(self.round_bf16().0))) }
    }
    #[inline(always)] unsafe fn round_f16(self) -> Self {
        unsafe {
            let mut halves = [0; 4];
            self.store_f16(halves.as_mut_ptr());
            Self::load_f16(halves.as_ptr())
        }
    }
    #[inline(always)] unsafe fn round_bf16(self) -> Self {
        unsafe {
            // Half of the last place that is kept, and one more where that place is odd.
            let bits = vreinterpretq_u32_f32(self.0);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let sum = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            let sum = vbslq_u32(self.is_nan(), quiet, sum);
            Self(vreinterpretq_f32_u32(vandq_u32(sum, vdupq_n_u32(0xffff_0000))))
        }
    }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self {
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            Self(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))))
        }
    }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self {
        unsafe {
            let bytes = vreinterpret_u8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            Self(vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes)))))
        }
    }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self { unsafe { Self(vcvtq_f32_s32(vmovl_s16(vld1_s16(from)))) } }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self { unsafe { Self(vcvtq_f32_u32(vmovl_u16(vld1_u16(from)))) } }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) {
        unsafe {
            let halves = vmovn_u32(vreinterpretq_u32_f32(self.0));
            let bytes = vmovn_u16(vcombine_u16(halves, halves));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)))
        }
    }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) { unsafe { vst1_u16(to, vmovn_u32(vreinterpretq_u32_f32(self.0))) } }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { unsafe { Self(vaddq_f32(self.0, other.0)) } }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { unsafe { Self(vsubq_f32(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(vmulq_f32(self.0, other.0)) } }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { unsafe { Self(vdivq_f32(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(vfmaq_f32(summand.0, self.0, factor.0)) }
    }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { unsafe { Self::select(self.gt(other), self, other) } }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { unsafe { Self::select(other.gt(self), self, other) } }
    #[inline(always)] unsafe fn floor(self) -> Self { unsafe { Self(vrndmq_f32(self.0)) } }
    #[inline(always)] unsafe fn ceil(self) -> Self { unsafe { Self(vrndpq_f32(self.0)) } }
    #[inline(always)] unsafe fn gt(self, other: Self) -> uint32x4_t { unsafe { vcgtq_f32(self.0, other.0) } }
    #[inline(always)] unsafe fn eq(self, other: Self) -> uint32x4_t { unsafe { vceqq_f32(self.0, other.0) } }
    #[inline(always)] unsafe fn is_nan(self) -> uint32x4_t { unsafe { vmvnq_u32(vceqq_f32(self.0, self.0)) } }
    #[inline(always)] unsafe fn select(mask: uint32x4_t, yes: Self, no: Self) -> Self { unsafe { Self(vbslq_f32(mask, yes.0, no.0)) } }
    #[inline(always)] unsafe fn or(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t { unsafe { vorrq_u32(a, b) } }
    #[inline(always)] unsafe fn and(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t { unsafe { vandq_u32(a, b) } }
    #[inline(always)] unsafe fn none() -> uint32x4_t { unsafe { vdupq_n_u32(0) } }
    #[inline(always)] unsafe fn any(mask: uint32x4_t) -> bool { unsafe { vmaxvq_u32(mask) != 0 } }
    #[inline(always)] unsafe fn store_mask(mask: uint32x4_t, to: *mut u8) {
        unsafe { Self(vreinterpretq_f32_u32(vshrq_n_u32::<31>(mask))).store_low_8(to) }
    }
    #[inline(always)] unsafe fn from_words(words: Words4) -> Self { unsafe { Self(vcvtq_f32_u32(words.0)) } }
}

#[rustfmt::skip]
impl Vector for F64 {
    type Scalar = f64;
    type Mask = uint64x2_t;
    type Words = Words2;
    const LANES: usize = 2;

    #[inline(always)] unsafe fn splat(x: f64) -> Self { unsafe { Self(vdupq_n_f64(x)) } }
    #[inline(always)] unsafe fn load(from: *const f64) -> Self { unsafe { Self(vld1q_f64(from)) } }
    #[inline(always)] unsafe fn store(self, to: *mut f64) { unsafe { vst1q_f64(to, self.0) } }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self { unsafe { Self::load([f64::from(*from), f64::from(*from.add(1))].as_ptr()) } }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self { unsafe { Self::load([f64::from(*from), f64::from(*from.add(1))].as_ptr()) } }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self { unsafe { Self::load([f64::from(*from), f64::from(*from.add(1))].as_ptr()) } }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self { unsafe { Self::load([f64::from(*from), f64::from(*from.add(1))].as_ptr()) } }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) {
        unsafe {
            let bits = vreinterpretq_u64_f64(self.0);
            *to = vgetq_lane_u64::<0>(bits) as u8;
            *to.add(1) = vgetq_lane_u64::<1>(bits) as u8;
        }
    }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) {
        unsafe {
            let bits = vreinterpretq_u64_f64(self.0);
            *to = vgetq_lane_u64::<0>(bits) as u16;
            *to.add(1) = vgetq_lane_u64::<1>(bits) as u16;
        }
    }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { unsafe { Self(vaddq_f64(self.0, other.0)) } }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { unsafe { Self(vsubq_f64(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(vmulq_f64(self.0, other.0)) } }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { unsafe { Self(vdivq_f64(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(vfmaq_f64(summand.0, self.0, factor.0)) }
    }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { unsafe { Self::select(self.gt(other), self, other) } }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { unsafe { Self::select(other.gt(self), self, other) } }
    #[inline(always)] unsafe fn floor(self) -> Self { unsafe { Self(vrndmq_f64(self.0)) } }
    #[inline(always)] unsafe fn ceil(self) -> Self { unsafe { Self(vrndpq_f64(self.0)) } }
    #[inline(always)] unsafe fn gt(self, other: Self) -> uint64x2_t { unsafe { vcgtq_f64(self.0, other.0) } }
    #[inline(always)] unsafe fn eq(self, other: Self) -> uint64x2_t { unsafe { vceqq_f64(self.0, other.0) } }
    #[inline(always)] unsafe fn is_nan(self) -> uint64x2_t { unsafe { veorq_u64(vceqq_f64(self.0, self.0), vdupq_n_u64(u64::MAX)) } }
    #[inline(always)] unsafe fn select(mask: uint64x2_t, yes: Self, no: Self) -> Self { unsafe { Self(vbslq_f64(mask, yes.0, no.0)) } }
    #[inline(always)] unsafe fn or(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t { unsafe { vorrq_u64(a, b) } }
    #[inline(always)] unsafe fn and(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t { unsafe { vandq_u64(a, b) } }
    #[inline(always)] unsafe fn none() -> uint64x2_t { unsafe { vdupq_n_u64(0) } }
    #[inline(always)] unsafe fn any(mask: uint64x2_t) -> bool { unsafe { (vgetq_lane_u64::<0>(mask) | vgetq_lane_u64::<1>(mask)) != 0 } }
    #[inline(always)] unsafe fn store_mask(mask: uint64x2_t, to: *mut u8) {
        unsafe { Self(vreinterpretq_f64_u64(vshrq_n_u64::<63>(mask))).store_low_8(to) }
    }
    #[inline(always)] unsafe fn from_words(words: Words2) -> Self { unsafe { Self(vcvtq_f64_u64(vmovl_u32(words.0))) } }
}

#[rustfmt::skip]
impl Words for Words4 {
    #[inline(always)] unsafe fn count_from(first: u32) -> Self {
        unsafe { Self(vaddq_u32(vld1q_u32([0, 1, 2, 3].as_ptr()), vdupq_n_u32(first))) }
    }
    #[inline(always)] unsafe fn splat(x: u32) -> Self { unsafe { Self(vdupq_n_u32(x)) } }
    #[inline(always)] unsafe fn xor(self, other: Self) -> Self { unsafe { Self(veorq_u32(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(vmulq_u32(self.0, other.0)) } }
    #[inline(always)] unsafe fn shift_right<const N: i32>(self) -> Self { unsafe { Self(vshlq_u32(self.0, vdupq_n_s32(-N))) } }
}

#[rustfmt::skip]
impl Words for Words2 {
    #[inline(always)] unsafe fn count_from(first: u32) -> Self {
        unsafe { Self(vadd_u32(vld1_u32([0, 1].as_ptr()), vdup_n_u32(first))) }
    }
    #[inline(always)] unsafe fn splat(x: u32) -> Self { unsafe { Self(vdup_n_u32(x)) } }
    #[inline(always)] unsafe fn xor(self, other: Self) -> Self { unsafe { Self(veor_u32(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(vmul_u32(self.0, other.0)) } }
    #[inline(always)] unsafe fn shift_right<const N: i32>(self) -> Self { unsafe { Self(vshl_u32(self.0, vdup_n_s32(-N))) } }
}
