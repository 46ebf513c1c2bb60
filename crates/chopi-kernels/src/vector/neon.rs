//! NEON, of every 64-bit ARM CPU. It has no instructions for `f16` that stable Rust can name, so
//! those conversions go by `half`.

use std::arch::aarch64::*;
use std::mem::MaybeUninit;

use half::{bf16, f16};

use super::fields::Fields;
use super::{Arch, Bytes, Halves, Mask, Vector, Words, first, first_mut, intrinsics};

/// The instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The instruction set, without a look at the CPU.
    ///
    /// # Safety
    /// The CPU must have NEON.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Arch for Neon {
    type F32 = F32;
    type F64 = F64;
    type Bytes = Bytes16;
    const SPECIALIZED: bool = true;
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

/// 16 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes16(uint8x16_t);

/// 4 lanes, of all ones or all zeros.
#[derive(Clone, Copy, Debug)]
pub struct Mask4(uint32x4_t);

/// 2 lanes, of all ones or all zeros.
#[derive(Clone, Copy, Debug)]
pub struct Mask2(uint64x2_t);

impl Vector for F32 {
    type Arch = Neon;
    type Scalar = f32;
    type Mask = Mask4;
    type Words = Words4;
    const LANES: usize = 4;

    #[inline(always)]
    fn arch(self) -> Neon {
        Neon(())
    }

    intrinsics! {
        fn splat(_: Neon, x: f32) -> Self { Self(vdupq_n_f32(x)) }
        fn load(_: Neon, from: &[f32]) -> Self { Self(vld1q_f32(first::<4, _>(from).as_ptr())) }
        fn load_i8(_: Neon, from: &[i8]) -> Self {
            let codes = u32::from_le_bytes(first::<4, _>(from).map(|code| code as u8));
            let bytes = vreinterpret_s8_u32(vdup_n_u32(codes));
            Self(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))))
        }
        fn load_u8(_: Neon, from: &[u8]) -> Self {
            let bytes = vreinterpret_u8_u32(vdup_n_u32(u32::from_le_bytes(*first::<4, _>(from))));
            Self(vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes)))))
        }
        fn load_i16(_: Neon, from: &[i16]) -> Self {
            Self(vcvtq_f32_s32(vmovl_s16(vld1_s16(first::<4, _>(from).as_ptr()))))
        }
        fn load_u16(_: Neon, from: &[u16]) -> Self {
            Self(vcvtq_f32_u32(vmovl_u16(vld1_u16(first::<4, _>(from).as_ptr()))))
        }
        fn store(self, to: &mut [MaybeUninit<f32>]) {
            vst1q_f32(first_mut::<4, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn store_low_8(self, to: &mut [MaybeUninit<u8>]) {
            let halves = vmovn_u32(vreinterpretq_u32_f32(self.0));
            let bytes = vmovn_u16(vcombine_u16(halves, halves));
            let codes = vget_lane_u32::<0>(vreinterpret_u32_u8(bytes));
            *first_mut::<4, _>(to) = codes.to_le_bytes().map(MaybeUninit::new);
        }
        fn store_low_16(self, to: &mut [MaybeUninit<u16>]) {
            vst1_u16(first_mut::<4, _>(to).as_mut_ptr().cast(), vmovn_u32(vreinterpretq_u32_f32(self.0)))
        }
        fn add(self, other: Self) -> Self { Self(vaddq_f32(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(vsubq_f32(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(vmulq_f32(self.0, other.0)) }
        fn div(self, other: Self) -> Self { Self(vdivq_f32(self.0, other.0)) }
        fn mul_add(self, factor: Self, summand: Self) -> Self { Self(vfmaq_f32(summand.0, self.0, factor.0)) }
        fn floor(self) -> Self { Self(vrndmq_f32(self.0)) }
        fn ceil(self) -> Self { Self(vrndpq_f32(self.0)) }
        fn gt(self, other: Self) -> Mask4 { Mask4(vcgtq_f32(self.0, other.0)) }
        fn eq(self, other: Self) -> Mask4 { Mask4(vceqq_f32(self.0, other.0)) }
        fn is_either_nan(self, other: Self) -> Mask4 {
            Mask4(vmvnq_u32(vandq_u32(vceqq_f32(self.0, self.0), vceqq_f32(other.0, other.0))))
        }
        fn none(_: Neon) -> Mask4 { Mask4(vdupq_n_u32(0)) }
        fn select(mask: Mask4, yes: Self, no: Self) -> Self { Self(vbslq_f32(mask.0, yes.0, no.0)) }
        fn store_mask(mask: Mask4, to: &mut [MaybeUninit<u8>]) {
            Self(vreinterpretq_f32_u32(vshrq_n_u32::<31>(mask.0))).store_low_8(to)
        }
        fn from_words(words: Words4) -> Self { Self(vcvtq_f32_u32(words.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::select(self.gt(other), self, other)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self::select(other.gt(self), self, other)
    }
}

impl Halves for F32 {
    #[inline(always)]
    fn load_f16(arch: Neon, from: &[f16]) -> Self {
        Self::load(arch, &first::<4, _>(from).map(f16::to_f32))
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [MaybeUninit<f16>]) {
        let mut lanes = [const { MaybeUninit::uninit() }; 4];
        self.store(&mut lanes);
        // SAFETY: `store` has written all four lanes.
        let lanes: [f32; 4] = lanes.map(|lane| unsafe { lane.assume_init() });
        *first_mut::<4, _>(to) = lanes.map(|lane| MaybeUninit::new(f16::from_f32(lane)));
    }
    #[inline(always)]
    fn round_f16(self) -> Self {
        let mut halves = [const { MaybeUninit::uninit() }; 4];
        self.store_f16(&mut halves);
        // SAFETY: `store_f16` has written all four lanes.
        Self::load_f16(
            self.arch(),
            &halves.map(|half| unsafe { half.assume_init() }),
        )
    }

    intrinsics! {
        fn load_bf16(_: Neon, from: &[bf16]) -> Self {
            let halves = vld1_u16(first::<4, _>(from).as_ptr().cast());
            Self(vreinterpretq_f32_u32(vshll_n_u16::<16>(halves)))
        }
        fn store_bf16(self, to: &mut [MaybeUninit<bf16>]) {
            let halves = vshrn_n_u32::<16>(vreinterpretq_u32_f32(self.round_bf16().0));
            vst1_u16(first_mut::<4, _>(to).as_mut_ptr().cast(), halves)
        }
        fn round_bf16(self) -> Self {
            // Half of the last place that is kept, and one more where that place is odd.
            let bits = vreinterpretq_u32_f32(self.0);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let sum = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            let sum = vbslq_u32(self.is_nan().0, quiet, sum);
            Self(vreinterpretq_f32_u32(vandq_u32(sum, vdupq_n_u32(0xffff_0000))))
        }
    }
}

impl Vector for F64 {
    type Arch = Neon;
    type Scalar = f64;
    type Mask = Mask2;
    type Words = Words2;
    const LANES: usize = 2;

    #[inline(always)]
    fn arch(self) -> Neon {
        Neon(())
    }

    intrinsics! {
        fn splat(_: Neon, x: f64) -> Self { Self(vdupq_n_f64(x)) }
        fn load(_: Neon, from: &[f64]) -> Self { Self(vld1q_f64(first::<2, _>(from).as_ptr())) }
        fn store(self, to: &mut [MaybeUninit<f64>]) {
            vst1q_f64(first_mut::<2, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn store_low_8(self, to: &mut [MaybeUninit<u8>]) {
            let bits = vreinterpretq_u64_f64(self.0);
            let codes = [vgetq_lane_u64::<0>(bits) as u8, vgetq_lane_u64::<1>(bits) as u8];
            *first_mut::<2, _>(to) = codes.map(MaybeUninit::new);
        }
        fn store_low_16(self, to: &mut [MaybeUninit<u16>]) {
            let bits = vreinterpretq_u64_f64(self.0);
            let codes = [vgetq_lane_u64::<0>(bits) as u16, vgetq_lane_u64::<1>(bits) as u16];
            *first_mut::<2, _>(to) = codes.map(MaybeUninit::new);
        }
        fn add(self, other: Self) -> Self { Self(vaddq_f64(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(vsubq_f64(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(vmulq_f64(self.0, other.0)) }
        fn div(self, other: Self) -> Self { Self(vdivq_f64(self.0, other.0)) }
        fn mul_add(self, factor: Self, summand: Self) -> Self { Self(vfmaq_f64(summand.0, self.0, factor.0)) }
        fn floor(self) -> Self { Self(vrndmq_f64(self.0)) }
        fn ceil(self) -> Self { Self(vrndpq_f64(self.0)) }
        fn gt(self, other: Self) -> Mask2 { Mask2(vcgtq_f64(self.0, other.0)) }
        fn eq(self, other: Self) -> Mask2 { Mask2(vceqq_f64(self.0, other.0)) }
        fn is_either_nan(self, other: Self) -> Mask2 {
            let numbers = vandq_u64(vceqq_f64(self.0, self.0), vceqq_f64(other.0, other.0));
            Mask2(veorq_u64(numbers, vdupq_n_u64(u64::MAX)))
        }
        fn none(_: Neon) -> Mask2 { Mask2(vdupq_n_u64(0)) }
        fn select(mask: Mask2, yes: Self, no: Self) -> Self { Self(vbslq_f64(mask.0, yes.0, no.0)) }
        fn store_mask(mask: Mask2, to: &mut [MaybeUninit<u8>]) {
            Self(vreinterpretq_f64_u64(vshrq_n_u64::<63>(mask.0))).store_low_8(to)
        }
        fn from_words(words: Words2) -> Self { Self(vcvtq_f64_u64(vmovl_u32(words.0))) }
    }

    #[inline(always)]
    fn load_i8(arch: Neon, from: &[i8]) -> Self {
        Self::load(arch, &first::<2, _>(from).map(f64::from))
    }
    #[inline(always)]
    fn load_u8(arch: Neon, from: &[u8]) -> Self {
        Self::load(arch, &first::<2, _>(from).map(f64::from))
    }
    #[inline(always)]
    fn load_i16(arch: Neon, from: &[i16]) -> Self {
        Self::load(arch, &first::<2, _>(from).map(f64::from))
    }
    #[inline(always)]
    fn load_u16(arch: Neon, from: &[u16]) -> Self {
        Self::load(arch, &first::<2, _>(from).map(f64::from))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::select(self.gt(other), self, other)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self::select(other.gt(self), self, other)
    }
}

impl Mask for Mask4 {
    intrinsics! {
        fn or(self, other: Self) -> Self { Self(vorrq_u32(self.0, other.0)) }
        fn any(self) -> bool { vmaxvq_u32(self.0) != 0 }
    }
}

impl Mask for Mask2 {
    intrinsics! {
        fn or(self, other: Self) -> Self { Self(vorrq_u64(self.0, other.0)) }
        fn any(self) -> bool { (vgetq_lane_u64::<0>(self.0) | vgetq_lane_u64::<1>(self.0)) != 0 }
    }
}

impl Words for Words4 {
    type Arch = Neon;

    intrinsics! {
        fn count_from(_: Neon, first: u32) -> Self {
            Self(vaddq_u32(vld1q_u32([0, 1, 2, 3].as_ptr()), vdupq_n_u32(first)))
        }
        fn splat(_: Neon, x: u32) -> Self { Self(vdupq_n_u32(x)) }
        fn xor(self, other: Self) -> Self { Self(veorq_u32(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(vmulq_u32(self.0, other.0)) }
        fn shift_right[const N: i32](self) -> Self { Self(vshlq_u32(self.0, vdupq_n_s32(-N))) }
    }
}

impl Words for Words2 {
    type Arch = Neon;

    intrinsics! {
        fn count_from(_: Neon, first: u32) -> Self {
            Self(vadd_u32(vld1_u32([0, 1].as_ptr()), vdup_n_u32(first)))
        }
        fn splat(_: Neon, x: u32) -> Self { Self(vdup_n_u32(x)) }
        fn xor(self, other: Self) -> Self { Self(veor_u32(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(vmul_u32(self.0, other.0)) }
        fn shift_right[const N: i32](self) -> Self { Self(vshl_u32(self.0, vdup_n_s32(-N))) }
    }
}

impl Bytes for Bytes16 {
    type Arch = Neon;
    const LANES: usize = 16;

    intrinsics! {
        fn splat(_: Neon, x: u8) -> Self { Self(vdupq_n_u8(x)) }
        fn load(_: Neon, from: &[u8]) -> Self { Self(vld1q_u8(first::<16, _>(from).as_ptr())) }
        fn store(self, to: &mut [MaybeUninit<u8>]) {
            vst1q_u8(first_mut::<16, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn add(self, other: Self) -> Self { Self(vaddq_u8(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(vsubq_u8(self.0, other.0)) }
        fn and(self, other: Self) -> Self { Self(vandq_u8(self.0, other.0)) }
        fn or(self, other: Self) -> Self { Self(vorrq_u8(self.0, other.0)) }
        fn xor(self, other: Self) -> Self { Self(veorq_u8(self.0, other.0)) }
        fn any(self) -> bool { vmaxvq_u8(self.0) != 0 }
        fn load_fields[const B: usize](arch: Neon, from: &[u8]) -> Self {
            if B == 8 {
                return Self::load(arch, from);
            }
            let dense = Self::load(arch, from).0;
            let even = vqtbl1q_u8(dense, vld1q_u8(Fields::<B>::EVEN.as_ptr()));
            let even = vmulq_u16(vreinterpretq_u16_u8(even), vld1q_u16(Fields::<B>::EVEN_UP.as_ptr()));
            let odd = vqtbl1q_u8(dense, vld1q_u8(Fields::<B>::ODD.as_ptr()));
            let odd = vmulq_u16(vreinterpretq_u16_u8(odd), vld1q_u16(Fields::<B>::ODD_UP.as_ptr()));
            let (even, odd) = (vreinterpretq_u8_u16(even), vreinterpretq_u8_u16(odd));
            // The upper bytes of both, in turn.
            Self(vandq_u8(vtrn2q_u8(even, odd), vdupq_n_u8(u8::MAX >> (8 - B))))
        }
        fn store_fields[const B: usize](self, to: &mut [MaybeUninit<u8>]) {
            if B == 8 {
                return self.store(to);
            }
            // Two side by side, then four, then eight: the odd ones move to the even ones.
            let bytes = vreinterpretq_u16_u8(self.0);
            let odd = vshlq_u16(vshrq_n_u16::<8>(bytes), vdupq_n_s16(B as i16));
            let mut joined = vreinterpretq_u32_u16(vorrq_u16(vandq_u16(bytes, vdupq_n_u16(0xff)), odd));
            if Fields::<B>::JOINED > 2 {
                let odd = vshlq_u32(vshrq_n_u32::<16>(joined), vdupq_n_s32(2 * B as i32));
                joined = vorrq_u32(vandq_u32(joined, vdupq_n_u32(0xffff)), odd);
            }
            let mut joined = vreinterpretq_u64_u32(joined);
            if Fields::<B>::JOINED > 4 {
                let odd = vshlq_u64(vshrq_n_u64::<32>(joined), vdupq_n_s64(4 * B as i64));
                joined = vorrq_u64(vandq_u64(joined, vdupq_n_u64(0xffff_ffff)), odd);
            }
            let bytes = vreinterpretq_u8_u64(joined);
            let dense = vqtbl1q_u8(bytes, vld1q_u8(Fields::<B>::DENSE.as_ptr()));
            Self(dense).store(to)
        }
    }
}

impl crate::sealed::Sealed for Neon {}
impl crate::sealed::Sealed for F32 {}
impl crate::sealed::Sealed for F64 {}
impl crate::sealed::Sealed for Mask4 {}
impl crate::sealed::Sealed for Mask2 {}
impl crate::sealed::Sealed for Words4 {}
impl crate::sealed::Sealed for Words2 {}
impl crate::sealed::Sealed for Bytes16 {}
