//! The keys and values of the tokens until now, in floats or in codes.

use candle_core::{Device, Tensor};
use chopi_candle::Candle;
use chopi_core::backend::{Backend, FloatType};
use chopi_core::observer::Ranges;
use chopi_core::packing::{Field, Packing};
use chopi_core::{Chopi, Convention, QParams, Scheme};

use crate::error::{Error, Result};

/// How a decoder keeps the keys and values of the tokens that it has seen.
///
/// Codes are asymmetric, by [`Convention::CHOPI`], with the range, from the smallest to the largest element, of each
/// head of each token by itself: what is kept of a token does not depend on the others. For a head of d elements they
/// take d·b/8 + 8 bytes, with the scale and the zero point, where floats take 4·d. Attention is computed in floats, of
/// the values of the codes, those of the token itself among them.
///
/// ```no_run
/// # mod chopi { pub use chopi_models as models; }
/// use chopi::models::{CacheFormat, load};
///
/// let model = load("SmolLM2-135M-Instruct")?.with_cache(CacheFormat::Bits8)?;
/// println!("{}", model.generate("The capital of France is", 20)?);
/// # Ok::<(), chopi_models::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheFormat {
    /// As 32-bit floats.
    #[default]
    Float,
    /// As codes of 8 bits.
    Bits8,
    /// As codes of 4 bits, two in a byte.
    Bits4,
}

/// The keys and values of the tokens until now, in one layer.
#[derive(Clone, Debug)]
pub(super) enum Memory {
    Float(Floats),
    /// The keys, and the values.
    Codes(Box<(Codes, Codes)>),
}

impl Memory {
    /// The memory of no tokens.
    pub(super) fn new(format: CacheFormat) -> Self {
        let bits = match format {
            CacheFormat::Float => return Self::Float(Floats::default()),
            CacheFormat::Bits8 => 8,
            CacheFormat::Bits4 => 4,
        };
        Self::Codes(Box::new((Codes::new(bits), Codes::new(bits))))
    }

    /// Keeps what follows, \[heads, tokens, head\], which the layers of these names gave, and gives all keys and
    /// values as they are kept.
    pub(super) fn append(
        &mut self,
        (key, key_name): (&Tensor, &str),
        (value, value_name): (&Tensor, &str),
    ) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Float(floats) => Ok(floats.append(key, value)?),
            Self::Codes(both) => {
                let (keys, values) = &mut **both;
                let keys = keys.append(key).map_err(Error::layer(key_name))?;
                let values = values.append(value).map_err(Error::layer(value_name))?;
                Ok((keys, values))
            }
        }
    }

    /// The bytes of the keys and values that are kept, without room for more.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Float(floats) => floats.bytes(),
            Self::Codes(both) => both.0.bytes() + both.1.bytes(),
        }
    }
}

/// Keys and values as floats.
#[derive(Clone, Debug, Default)]
pub(super) struct Floats {
    /// Both \[heads, capacity, head\].
    pair: Option<(Tensor, Tensor)>,
    tokens: usize,
}

/// For how many more tokens memory is made at least.
const STEP: usize = 128;

impl Floats {
    fn append(&mut self, key: &Tensor, value: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        let (heads, tokens, head) = key.dims3()?;
        let total = self.tokens + tokens;
        let capacity = match &self.pair {
            Some((keys, _)) => keys.dim(1)?,
            None => 0,
        };
        if total > capacity {
            // Half as many again, so that copies take time in proportion to the tokens.
            let capacity = total.max(capacity + (capacity / 2).max(STEP));
            let grown = |old: Option<&Tensor>| {
                let new = Tensor::zeros((heads, capacity, head), key.dtype(), key.device())?;
                if let Some(old) = old {
                    new.slice_set(&old.narrow(1, 0, self.tokens)?.contiguous()?, 1, 0)?;
                }
                Ok::<_, candle_core::Error>(new)
            };
            let old = self.pair.as_ref();
            self.pair = Some((
                grown(old.map(|pair| &pair.0))?,
                grown(old.map(|pair| &pair.1))?,
            ));
        }
        let Some((keys, values)) = &self.pair else {
            candle_core::bail!("there are no tokens");
        };
        keys.slice_set(key, 1, self.tokens)?;
        values.slice_set(value, 1, self.tokens)?;
        self.tokens = total;
        Ok((keys.narrow(1, 0, total)?, values.narrow(1, 0, total)?))
    }

    fn bytes(&self) -> usize {
        let of = |x: &Tensor| match *x.dims() {
            [heads, _, head] => heads * self.tokens * head * x.dtype().size_in_bytes(),
            _ => 0,
        };
        self.pair
            .as_ref()
            .map_or(0, |(keys, values)| of(keys) + of(values))
    }
}

/// Keys or values as codes.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    bits: u32,
    heads: Vec<Head>,
}

/// What is kept of one head: a row of codes, a scale and a zero point for each token.
#[derive(Clone, Debug, Default)]
struct Head {
    packed: Vec<u8>,
    scale: Vec<f32>,
    zero_point: Vec<i32>,
}

impl Codes {
    fn new(bits: u32) -> Self {
        let heads = Vec::new();
        Self { bits, heads }
    }

    /// Keeps x, \[heads, tokens, head\], and gives the values of all codes.
    fn append(&mut self, x: &Tensor) -> chopi_core::Result<Tensor> {
        let (heads, tokens, head) = x.dims3().map_err(framework)?;
        let (scheme, packing) = (
            self.scheme(head)?,
            Packing::new(self.bits, Field::Unsigned)?,
        );
        let ranges = Ranges::observe(x, scheme.granularity)?;
        let params = QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI)?;
        let codes = params.quantize(x)?;
        let codes: Vec<u8> = codes
            .flatten_all()
            .and_then(|q| q.to_vec1())
            .map_err(framework)?;
        self.heads.resize_with(heads, Head::default);
        let parts = self
            .heads
            .iter_mut()
            .zip(codes.chunks_exact((tokens * head).max(1)));
        for (h, (kept, codes)) in parts.enumerate() {
            let groups = h * tokens..(h + 1) * tokens;
            kept.packed.extend(packing.pack(codes, head)?);
            // A scale is a number of the compute type, and a zero point fits 32 bits.
            let (scale, zero_point) = (
                &params.scale()[groups.clone()],
                &params.zero_point()[groups],
            );
            kept.scale.extend(scale.iter().map(|&s| s as f32));
            kept.zero_point.extend(zero_point.iter().map(|&z| z as i32));
        }
        self.values(scheme, packing, head)
    }

    /// The values of all codes, \[heads, tokens, head\].
    fn values(&self, scheme: Scheme, packing: Packing, head: usize) -> chopi_core::Result<Tensor> {
        let tokens = self.heads.first().map_or(0, |kept| kept.scale.len());
        let mut codes = Vec::with_capacity(self.heads.len() * tokens * head);
        for kept in &self.heads {
            codes.extend(packing.unpack::<u8>(&kept.packed, tokens, head)?);
        }
        let scale = self.heads.iter().flat_map(|kept| &kept.scale);
        let zero_point = self.heads.iter().flat_map(|kept| &kept.zero_point);
        let params = QParams::new(
            scheme,
            Convention::CHOPI,
            FloatType::F32,
            vec![self.heads.len(), tokens, 1],
            scale.map(|&s| s.into()).collect(),
            zero_point.map(|&z| z.into()).collect(),
        )?;
        let shape = (self.heads.len(), tokens, head);
        let codes = Tensor::from_vec(codes, shape, &Device::Cpu).map_err(framework)?;
        params.dequantize(&codes)
    }

    /// Asymmetric codes, with parameters for each head of each token.
    fn scheme(&self, head: usize) -> chopi_core::Result<Scheme> {
        Chopi::builder()
            .num_bits(self.bits)
            .per_group(head, 2)
            .scheme()
    }

    fn bytes(&self) -> usize {
        let of = |kept: &Head| {
            kept.packed.len() + size_of_val(&*kept.scale) + size_of_val(&*kept.zero_point)
        };
        self.heads.iter().map(of).sum()
    }
}

fn framework(source: candle_core::Error) -> chopi_core::Error {
    chopi_core::Error::Framework {
        backend: Candle::NAME,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between −1 and 1, those of one head of one token far from 0, and those of another equal.
    fn noise(heads: usize, tokens: usize, head: usize, seed: u32) -> Vec<f32> {
        let count = (heads * tokens * head) as u32;
        let number = |i: u32| ((i * 2 + seed) as f32 * 12.9898).sin();
        let mut x: Vec<f32> = (0..count).map(number).collect();
        x[..head].iter_mut().for_each(|x| *x += 1000.0);
        x[head..2 * head].fill(0.25);
        x
    }

    /// The definition in words: of each row by itself, s = (max − min)/(2^b − 1), z = RNE(−min/s),
    /// q = clamp(RNE(x/s + z), 0, 2^b − 1), and the value (q − z)·s.
    fn naive(row: &[f32], bits: u32) -> Vec<f32> {
        let levels = f64::from((1_u32 << bits) - 1);
        let wide = row.iter().map(|&x| f64::from(x));
        let (min, max) = (
            wide.clone().fold(f64::INFINITY, f64::min),
            wide.fold(f64::NEG_INFINITY, f64::max),
        );
        if min == max {
            return row.to_vec();
        }
        let step = ((max - min) / levels).max(min.abs().max(max.abs()) * 2_f64.powi(-24));
        let (z, s) = ((-min / step).round_ties_even(), step as f32);
        let value = |&x: &f32| {
            let code = (f64::from(x / s) + z).round_ties_even().clamp(0.0, levels);
            (code - z) as f32 * s
        };
        row.iter().map(value).collect()
    }

    #[test]
    fn what_is_kept_is_what_the_definition_says_whatever_comes_at_once() {
        let (heads, head) = (3, 10);
        for (format, bits) in [(CacheFormat::Bits8, 8), (CacheFormat::Bits4, 4)] {
            let counts = [5, 1, 1, 130, 2];
            let mut memory = Memory::new(format);
            let mut expected: Vec<Vec<f32>> = vec![Vec::new(); 2 * heads];
            let mut tokens = 0;
            for (seed, count) in counts.into_iter().enumerate() {
                tokens += count;
                let pair =
                    [0, 1].map(|of| noise(heads, count.max(2), head, (2 * seed + of) as u32));
                let tensor = |x: &[f32]| {
                    let x =
                        Tensor::from_slice(x, (heads, count.max(2), head), &Device::Cpu).unwrap();
                    x.narrow(1, 0, count).unwrap().contiguous().unwrap()
                };
                let [key, value] = [0, 1].map(|of| tensor(&pair[of]));
                for (of, x) in pair.iter().enumerate() {
                    for (h, rows) in x.chunks_exact(count.max(2) * head).enumerate() {
                        let rows = rows[..count * head].chunks_exact(head);
                        expected[of * heads + h].extend(rows.flat_map(|row| naive(row, bits)));
                    }
                }
                let (keys, values) = memory.append((&key, "k_proj"), (&value, "v_proj")).unwrap();
                for (of, found) in [keys, values].into_iter().enumerate() {
                    assert_eq!(found.dims(), [heads, tokens, head]);
                    let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
                    assert_eq!(
                        found,
                        expected[of * heads..(of + 1) * heads].concat(),
                        "{bits} bits"
                    );
                }
            }
            assert_eq!(
                memory.bytes(),
                2 * heads * tokens * (head * bits as usize / 8 + 8)
            );
        }
    }

    #[test]
    fn floats_are_kept_as_they_are() {
        let mut memory = Memory::new(CacheFormat::Float);
        let x = Tensor::from_vec(noise(2, 3, 4, 1), (2, 3, 4), &Device::Cpu).unwrap();
        let mut all = Vec::new();
        for token in 0..3 {
            let part = x.narrow(1, token, 1).unwrap().contiguous().unwrap();
            all = vec![memory.append((&part, "k"), (&part, "v")).unwrap()];
        }
        let (keys, values) = all.remove(0);
        for found in [keys, values] {
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(found, x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
        assert_eq!(memory.bytes(), 2 * 2 * 3 * 4 * 4);
    }

    #[test]
    fn numbers_that_have_no_codes_are_an_error_that_names_the_layer() {
        let mut memory = Memory::new(CacheFormat::Bits8);
        let good = Tensor::ones((1, 1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let bad = Tensor::new(&[[[1.0_f32, f32::NAN]]], &Device::Cpu).unwrap();
        let error = memory
            .append((&good, "k_proj"), (&bad, "v_proj"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("v_proj: ") && error.contains("NaN"),
            "{error}"
        );
    }
}
