//! The instruction set that the loops run on.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::vector::Arch;
use crate::vector::portable::Portable;

/// An instruction set that the loops are compiled for.
///
/// The best that the CPU has is chosen once, on first use. All give the same bits, so a choice
/// matters to tests and benchmarks only: [`force`](Self::force) makes one, as does the environment
/// variable `CHOPI_ISA` (`avx512`, `avx2`, `neon` or `portable`). A value of the variable that is
/// unknown, or an instruction set that the CPU does not have, is ignored here; [`asked`](Self::asked)
/// returns it as an error.
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

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// There is no instruction set of this name.
    #[error("there is no instruction set {name:?}, expected avx512, avx2, neon or portable")]
    Unknown {
        /// The name.
        name: String,
    },
    /// This CPU does not have it.
    #[error("this CPU does not have {isa}")]
    Missing {
        /// The instruction set.
        isa: Isa,
    },
}

/// The choice: an index into [`Isa::ALL`], or `UNKNOWN` before the first use. Only
/// [`Isa::force`] and [`Isa::choose`] store one, and only one that the CPU has.
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

    /// The one that the loops run on.
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
    /// [`IsaError::Unknown`] for another name, [`IsaError::Missing`] where the CPU does not have it.
    pub fn asked() -> Result<Option<Self>, IsaError> {
        let Some(name) = std::env::var_os("CHOPI_ISA") else {
            return Ok(None);
        };
        let isa: Self = name.to_string_lossy().parse()?;
        match isa.is_available() {
            true => Ok(Some(isa)),
            false => Err(IsaError::Missing { isa }),
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

    /// Makes the loops run on this one from now on, in the whole process.
    ///
    /// # Errors
    /// [`IsaError::Missing`] where the CPU does not have it.
    pub fn force(self) -> Result<(), IsaError> {
        if !self.is_available() {
            return Err(IsaError::Missing { isa: self });
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
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        let named = Self::ALL.into_iter().find(|isa| isa.name() == name);
        named.ok_or_else(|| IsaError::Unknown {
            name: name.to_owned(),
        })
    }
}

/// A loop that is compiled for each instruction set.
///
/// The compiler fuses and reassociates nothing on its own, so the bits are the same in each.
pub trait Loop {
    /// What the loop gives.
    type Output;
    /// Whether the loop is plain Rust, which the compiler puts into vectors itself. It is compiled for
    /// AVX2, but not again for AVX-512, which would bring little.
    const IS_PLAIN: bool = false;

    /// Runs the loop. It should be `#[inline(always)]`, as should what it calls: what is not inlined is
    /// compiled for every CPU of the architecture, which is right, but slow.
    fn run<A: Arch>(self, arch: A) -> Self::Output;
}

/// Runs a loop on the instruction set that is [active](Isa::active).
pub fn dispatch<L: Loop>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    use crate::vector::{avx2::Avx2, avx512::Avx512};

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn on_avx512<L: Loop>(work: L, arch: Avx512) -> L::Output {
        work.run(arch)
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn on_avx2<L: Loop>(work: L, arch: Avx2) -> L::Output {
        work.run(arch)
    }

    match Isa::active() {
        // SAFETY: an instruction set is active only where `is_available` has found on this CPU all the
        // features that the function enables.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if const { !L::IS_PLAIN } => unsafe { on_avx512(work, Avx512::assume()) },
        // SAFETY: as for AVX-512, of which AVX2 is a part.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => unsafe { on_avx2(work, Avx2::assume()) },
        // SAFETY: NEON is active on aarch64 alone, of which it is a part.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => work.run(unsafe { crate::vector::neon::Neon::assume() }),
        _ => work.run(Portable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_is_found_by_its_name() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>(), Ok(isa));
        }
        let error = "sse9".parse::<Isa>().unwrap_err();
        assert!(error.to_string().contains("sse9"), "{error}");
    }

    #[test]
    fn the_one_that_the_environment_asks_for_is_active_or_else_the_best() {
        let best = || Isa::ALL.into_iter().find(|isa| isa.is_available());
        assert_eq!(Some(Isa::active()), Isa::asked().unwrap().or_else(best));
    }

    #[test]
    fn one_that_the_cpu_lacks_is_refused() {
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            assert_eq!(isa.force(), Err(IsaError::Missing { isa }));
        }
    }
}
