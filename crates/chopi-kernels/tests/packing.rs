//! Packed codes, bit by bit, on every instruction set.

use std::mem::MaybeUninit;

use chopi_kernels::{Int, Isa, Sign, pack, unpack};

/// The three ways in which codes of b bits become fields.
fn signs(bits: u32) -> [Sign; 3] {
    let half = 1 << (bits - 1);
    let sign = |flip, offset| Sign { flip, offset };
    [sign(0, 0), sign(half, half), sign(0, half)]
}

/// The field of a code, by arithmetic.
fn field(code: i64, bits: u32, sign: Sign) -> u64 {
    let field = match sign {
        Sign { flip: 0, offset } => code + i64::from(offset),
        // Two's complement.
        _ => code.rem_euclid(1 << bits),
    };
    field.try_into().expect("the code has as many bits")
}

/// The packed codes, bit by bit.
fn packed(codes: &[i64], bits: u32, sign: Sign) -> Vec<u8> {
    let mut packed = vec![0_u8; (codes.len() * bits as usize).div_ceil(8)];
    for (i, &code) in codes.iter().enumerate() {
        for bit in 0..bits as usize {
            let place = i * bits as usize + bit;
            packed[place / 8] |= ((field(code, bits, sign) >> bit & 1) as u8) << (place % 8);
        }
    }
    packed
}

/// The numbers of codes that are tried: each rest of every vector.
const LENGTHS: std::ops::Range<usize> = 0..300;

/// Codes of a sign, all of them in an order that looks like none.
fn codes(len: usize, bits: u32, sign: Sign) -> Vec<i64> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 16;
    let field = |i| i64::from(hash(i) % (1 << bits));
    (0..len)
        .map(|i| field(i) - i64::from(sign.offset))
        .collect()
}

/// What `pack` gives for codes of a type, where all of them fit.
fn pack_ints<I: Int + TryFrom<i64>>(codes: &[i64], bits: u32, sign: Sign) -> Option<Vec<u8>> {
    let codes: Option<Vec<I>> = codes.iter().map(|&code| code.try_into().ok()).collect();
    let codes = codes.expect("the type holds the codes");
    let mut out = vec![MaybeUninit::new(0xa5); (codes.len() * bits as usize).div_ceil(8)];
    let fit = pack(I::slice(&codes), bits, sign, &mut out);
    // SAFETY: each byte was initialized when the vector was made.
    let out = out.into_iter().map(|byte| unsafe { byte.assume_init() });
    fit.then(|| out.collect())
}

/// What `unpack` gives for codes of a sign.
fn unpack_ints(bytes: &[u8], len: usize, bits: u32, sign: Sign) -> Vec<i64> {
    fn of<I: Int>(bytes: &[u8], len: usize, bits: u32, sign: Sign) -> Vec<i64> {
        let mut out = vec![MaybeUninit::new(I::default()); len];
        unpack(bytes, bits, sign, I::slice_mut(&mut out));
        // SAFETY: each code was initialized when the vector was made.
        let code = |code: MaybeUninit<I>| unsafe { code.assume_init() }.to_i64();
        out.into_iter().map(code).collect()
    }
    match sign.offset {
        0 => of::<u8>(bytes, len, bits, sign),
        _ => of::<i8>(bytes, len, bits, sign),
    }
}

/// Runs a test on every instruction set that this CPU has.
fn on_every_isa(test: impl Fn(Isa)) {
    let before = Isa::active();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        isa.force().expect("it is available");
        test(isa);
    }
    before.force().expect("it was active");
}

#[test]
fn codes_of_every_length_are_packed_bit_by_bit_and_come_back() {
    on_every_isa(|isa| {
        for bits in 1..=8 {
            for sign in signs(bits) {
                for len in LENGTHS {
                    let codes = codes(len, bits, sign);
                    let expected = packed(&codes, bits, sign);
                    let case = format!("{isa}, {len} codes of {bits} bits, {sign:?}");
                    let packed = match sign.offset {
                        0 => pack_ints::<u8>(&codes, bits, sign),
                        _ => pack_ints::<i8>(&codes, bits, sign),
                    };
                    assert_eq!(packed.as_ref(), Some(&expected), "{case}");
                    assert_eq!(unpack_ints(&expected, len, bits, sign), codes, "{case}");
                }
            }
        }
    });
}

#[test]
fn codes_of_every_integer_type_are_packed_alike() {
    on_every_isa(|isa| {
        for bits in 1..=8 {
            for sign in signs(bits) {
                for len in [1, 300, 1024, 2500] {
                    let codes = codes(len, bits, sign);
                    let expected = Some(packed(&codes, bits, sign));
                    let case = format!("{isa}, {len} codes of {bits} bits, {sign:?}");
                    assert_eq!(pack_ints::<i16>(&codes, bits, sign), expected, "{case}");
                    assert_eq!(pack_ints::<i32>(&codes, bits, sign), expected, "{case}");
                    assert_eq!(pack_ints::<i64>(&codes, bits, sign), expected, "{case}");
                    let positive: Vec<i64> = codes.iter().map(|&code| code.max(0)).collect();
                    let expected = Some(packed(&positive, bits, sign));
                    assert_eq!(pack_ints::<u8>(&positive, bits, sign), expected, "{case}");
                    assert_eq!(pack_ints::<u16>(&positive, bits, sign), expected, "{case}");
                    assert_eq!(pack_ints::<u32>(&positive, bits, sign), expected, "{case}");
                }
            }
        }
    });
}

#[test]
fn a_code_of_more_bits_is_seen_wherever_it_is() {
    on_every_isa(|isa| {
        for bits in 1..=8 {
            for sign in signs(bits) {
                let (low, high) = {
                    let low = -i64::from(sign.offset);
                    (low, low + (1 << bits) - 1)
                };
                let outside = [
                    low - 1,
                    high + 1,
                    -128,
                    -1,
                    127,
                    128,
                    255,
                    1 << 31,
                    -1 << 40,
                ];
                for len in [1, 37, 130, 300] {
                    let codes = codes(len, bits, sign);
                    for (place, code) in (0..len).flat_map(|i| outside.map(|code| (i, code))) {
                        let mut codes = codes.clone();
                        codes[place] = code;
                        let fits = (low..=high).contains(&code);
                        let case =
                            format!("{isa}, {code} at {place} of {len}, {bits} bits, {sign:?}");
                        let holds = |min, max| codes.iter().all(|code| (min..=max).contains(code));
                        if holds(-128, 127) {
                            assert_eq!(
                                pack_ints::<i8>(&codes, bits, sign).is_some(),
                                fits,
                                "{case}"
                            );
                        }
                        if holds(0, 255) {
                            assert_eq!(
                                pack_ints::<u8>(&codes, bits, sign).is_some(),
                                fits,
                                "{case}"
                            );
                        }
                        if place % 19 == 0 {
                            assert_eq!(
                                pack_ints::<i64>(&codes, bits, sign).is_some(),
                                fits,
                                "{case}"
                            );
                        }
                    }
                }
            }
        }
    });
}
