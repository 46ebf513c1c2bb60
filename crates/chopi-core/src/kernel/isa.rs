//! The instruction set that the kernels run on.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};

/// An instruction set that the kernels are compiled for.
///
/// The best that the CPU has is chosen once, on first use. All give the same bits, so a choice
/// matters to tests and benchmarks only: [`force`](Self::force) makes one, as does the environment
/// variable `CHOPI_ISA` (`avx512`, `avx2`, `neon` or `portable`). What the variable asks for in vain
/// is passed over, since first use has nobody to tell; [`asked`](Self::asked) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX2, FMA and F16C.
    Avx2,
    /// NEON, which every 64-bit ARM CPU has.
    Neon,
    /// What every CPU of the architecture has: SSE2 on x86-64.
    Portable,
}

/// The choice: an index into [`Isa::ALL`], or `UNKNOWN` before the first use.
static ACTIVE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = u8::MAX;

impl Isa {
    /// All instruction sets, the best first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// The name that `CHOPI_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Portable => true,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
        }
    }

    /// The one that the kernels run on.
    #[inline]
    pub fn active() -> Self {
        match Self::ALL.get(usize::from(ACTIVE.load(Ordering::Relaxed))) {
            Some(&isa) => isa,
            None => Self::choose(),
        }
    }

    /// What the environment variable `CHOPI_ISA` asks for, if it is set.
    ///
    /// # Errors
    /// [`Error::IsaName`] for another name, [`Error::Isa`] where the CPU does not have it.
    pub fn asked() -> Result<Option<Self>> {
        let Some(name) = std::env::var_os("CHOPI_ISA") else {
            return Ok(None);
        };
        let isa: Self = name.to_string_lossy().parse()?;
        match isa.is_available() {
            true => Ok(Some(isa)),
            false => Err(Error::Isa { isa: isa.name() }),
        }
    }

    #[cold]
    fn choose() -> Self {
        let asked = Self::asked().ok().flatten();
        let isa = asked
            .or_else(|| Self::ALL.into_iter().find(|isa| isa.is_available()))
            .unwrap_or(Self::Portable);
        isa.store();
        isa
    }

    /// Makes the kernels run on this one from now on, in the whole process.
    ///
    /// # Errors
    /// [`Error::Isa`] where the CPU does not have it.
    pub fn force(self) -> Result<()> {
        if !self.is_available() {
            return Err(Error::Isa { isa: self.name() });
        }
        self.store();
        Ok(())
    }

    fn store(self) {
        let index = Self::ALL.iter().position(|&isa| isa == self);
        ACTIVE.store(
            index.map_or(UNKNOWN, |index| index as u8),
            Ordering::Relaxed,
        );
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|isa| isa.name() == name);
        named.ok_or_else(|| Error::IsaName {
            name: name.to_owned(),
        })
    }
}

/// Defines a function whose body is compiled for each instruction set, and which runs on
/// [`Isa::active`]. In the body, `A` is the [`Arch`](crate::kernel::vector::Arch); it must call
/// `#[inline(always)]` functions only.
///
/// The compiler fuses and reassociates nothing on its own, so the bits are the same in each.
macro_rules! per_isa {
    (
        $(#[$meta:meta])*
        fn $name:ident[$($params:tt)*][$($generics:tt)*](
            $($arg:ident: $type:ty),* $(,)?
        ) -> $ret:ty $body:block
    ) => {
        $(#[$meta])*
        pub(crate) fn $name<$($params)*>($($arg: $type),*) -> $ret {
            use $crate::kernel::isa::Isa;
            use $crate::kernel::vector;

            #[inline(always)]
            fn body<A: vector::Arch, $($params)*>($($arg: $type),*) -> $ret $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512<$($params)*>($($arg: $type),*) -> $ret {
                body::<vector::avx512::Avx512, $($generics)*>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2<$($params)*>($($arg: $type),*) -> $ret {
                body::<vector::avx2::Avx2, $($generics)*>($($arg),*)
            }
            match Isa::active() {
                // SAFETY: only an available instruction set is ever active, and it has the
                // features that the function enables.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512::<$($generics)*>($($arg),*) },
                // SAFETY: likewise.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2::<$($generics)*>($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => body::<vector::neon::Neon, $($generics)*>($($arg),*),
                _ => body::<vector::portable::Portable, $($generics)*>($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_is_found_by_its_name() {
        for isa in Isa::ALL {
            assert!(matches!(isa.to_string().parse::<Isa>(), Ok(found) if found == isa));
        }
        let error = "sse9".parse::<Isa>();
        assert!(matches!(error, Err(Error::IsaName { name }) if name == "sse9"));
    }

    #[test]
    fn one_that_the_cpu_lacks_is_refused() {
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            assert!(matches!(isa.force(), Err(Error::Isa { .. })));
        }
    }
}
