//! Loops over slices, compiled for each instruction set.
//!
//! A tensor is a sequence of [`Tiles`](crate::tiles::Tiles): runs that share one parameter or have
//! one an element. Two paths compute a code, with the same bits:
//!
//! * `fast`: round half to even in the compute type itself, where every integer in sight is small
//!   enough to be exact in it. One fused loop.
//! * `general`: any rounding, any zero point, codes of up to 32 bits. A few short loops over a
//!   block that stays in cache, in `f64`.

pub(crate) mod code;
pub(crate) mod dequantize;
pub(crate) mod fake_quantize;
pub(crate) mod general;
pub(crate) mod lanes;
pub(crate) mod minmax;
pub(crate) mod quantize;

/// Defines a function whose body is compiled for AVX-512, AVX2 and the baseline, and which calls
/// the best that the CPU has. The body must call `#[inline(always)]` functions only.
///
/// The compiler fuses and reassociates nothing on its own, so the bits are the same in each.
macro_rules! per_cpu {
    (
        $(#[$meta:meta])*
        fn $name:ident[$($params:tt)*][$($generics:tt)*](
            $($arg:ident: $type:ty),* $(,)?
        ) -> $ret:ty $body:block
    ) => {
        $(#[$meta])*
        pub(crate) fn $name<$($params)*>($($arg: $type),*) -> $ret {
            #[inline(always)]
            fn body<$($params)*>($($arg: $type),*) -> $ret $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512<$($params)*>($($arg: $type),*) -> $ret {
                    body::<$($generics)*>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<$($params)*>($($arg: $type),*) -> $ret {
                    body::<$($generics)*>($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features that the function enables were just detected.
                    return unsafe { avx512::<$($generics)*>($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: likewise.
                    return unsafe { avx2::<$($generics)*>($($arg),*) };
                }
            }
            body::<$($generics)*>($($arg),*)
        }
    };
}
pub(crate) use per_cpu;
