//! Where the bits of fields lie in 16 bytes: tables for the vectors of bytes.
//!
//! 16 fields of B bits, a byte each, and the 2B bytes that they fill when they lie densely.

/// The tables for fields of `B` bits, 1 to 7 of them.
pub(super) struct Fields<const B: usize>;

impl<const B: usize> Fields<B> {
    /// How many fields are joined before they fill whole bytes.
    pub const JOINED: usize = match B {
        4 => 2,
        2 | 6 => 4,
        _ => 8,
    };

    /// The byte, of 16 in which [`JOINED`](Self::JOINED) fields begin at every so many bytes, that each of
    /// the first 2B bytes is.
    pub const DENSE: [u8; 16] = {
        let bytes = Self::JOINED * B / 8;
        let mut from = [0; 16];
        let mut i = 0;
        while i < 2 * B {
            from[i] = (i / bytes * Self::JOINED + i % bytes) as u8;
            i += 1;
        }
        from
    };

    /// The two dense bytes in which each even field lies, from the lowest bit on or a higher one.
    pub const EVEN: [u8; 16] = Self::around(0);
    /// The two dense bytes in which each odd field lies.
    pub const ODD: [u8; 16] = Self::around(1);
    /// What 16 bits of [`EVEN`](Self::EVEN) are multiplied by: the field is in the upper byte then.
    pub const EVEN_UP: [u16; 8] = Self::up(0);
    /// What 16 bits of [`ODD`](Self::ODD) are multiplied by: the field is in the upper byte then.
    pub const ODD_UP: [u16; 8] = Self::up(1);

    const fn around(odd: usize) -> [u8; 16] {
        let mut bytes = [0; 16];
        let mut pair = 0;
        while pair < 8 {
            let byte = (2 * pair + odd) * B / 8;
            bytes[2 * pair] = byte as u8;
            // A field of the last byte ends there.
            bytes[2 * pair + 1] = if byte < 15 { byte as u8 + 1 } else { 0 };
            pair += 1;
        }
        bytes
    }

    const fn up(odd: usize) -> [u16; 8] {
        let mut factors = [0; 8];
        let mut pair = 0;
        while pair < 8 {
            factors[pair] = 1 << (8 - (2 * pair + odd) * B % 8);
            pair += 1;
        }
        factors
    }
}

#[cfg(target_arch = "x86_64")]
impl<const B: usize> Fields<B> {
    /// What the first and the second of two fields are multiplied by: the sum has both side by side.
    pub const OF_TWO: [u8; 16] = {
        let mut factors = [1; 16];
        let mut i = 1;
        while i < 16 {
            factors[i] = (1_u16 << B) as u8;
            i += 2;
        }
        factors
    };

    /// What the first and the second of two pairs of fields are multiplied by.
    pub const OF_PAIRS: [u16; 8] = {
        let mut factors = [1; 8];
        let mut i = 1;
        while i < 8 {
            factors[i] = (1_u32 << (2 * B)) as u16;
            i += 2;
        }
        factors
    };

    /// Of four times 16 bytes, as 16-bit words, the word that each of the first 4B is when the dense ones come
    /// together.
    pub const TOGETHER: [u16; 32] = {
        let mut from = [0; 32];
        let mut i = 0;
        while i < 4 * B {
            from[i] = (i / B * 8 + i % B) as u16;
            i += 1;
        }
        from
    };

    /// The inverse of [`TOGETHER`](Self::TOGETHER): the word that each of the first B of every eight is.
    pub const APART: [u16; 32] = {
        let mut from = [0; 32];
        let mut i = 0;
        while i < 32 {
            if i % 8 < B {
                from[i] = (i / 8 * B + i % 8) as u16;
            }
            i += 1;
        }
        from
    };
}
