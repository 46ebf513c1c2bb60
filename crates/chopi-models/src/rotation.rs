//! Rotations by Hadamard matrices, which spread what is large in one channel over all of them.

use candle_core::{DType, Device, Tensor};

/// An orthogonal matrix Q of order d that blocks of d channels are multiplied by: x·Q.
///
/// Q = D·H/√d, with H a Hadamard matrix, of entries ±1 and H·Hᵀ = d·I, and D a diagonal of signs that look random but
/// are the same each time, so that no row of H, which are all very regular, meets a row of a model that is.
#[derive(Debug)]
pub(crate) struct Rotation {
    matrix: Tensor,
    order: usize,
}

/// How many rows are rotated at a time.
const ROWS: usize = 4096;

impl Rotation {
    /// The rotation of this order, if there is a Hadamard matrix for it here: see [`hadamard`].
    pub(crate) fn new(order: usize) -> candle_core::Result<Option<Self>> {
        let Some(entries) = hadamard(order) else {
            return Ok(None);
        };
        let size = 1.0 / (order as f64).sqrt();
        let rows = entries.chunks_exact(order).enumerate();
        let values = rows.flat_map(|(i, row)| {
            let sign = if is_negative(i as u64) { -size } else { size };
            row.iter().map(move |&entry| f64::from(entry) * sign)
        });
        let matrix = Tensor::from_vec(values.collect(), (order, order), &Device::Cpu)?;
        Ok(Some(Self { matrix, order }))
    }

    /// The rows of x, \[rows, blocks·d\], each block of each multiplied by Q, in `f64` and rounded once.
    pub(crate) fn rows(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let blocks = x.reshape(((), self.order))?;
        let count = blocks.dim(0)?;
        let part = |first: usize| {
            let part = blocks.narrow(0, first, ROWS.min(count - first))?;
            part.to_dtype(DType::F64)?
                .matmul(&self.matrix)?
                .to_dtype(x.dtype())
        };
        let parts = (0..count).step_by(ROWS).map(part);
        let parts = parts.collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)?.reshape(x.shape())
    }

    /// The columns of x, \[blocks·d, columns\], each block of each multiplied by Q: the transpose of what
    /// [`rows`](Self::rows) makes of the transpose.
    pub(crate) fn columns(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.rows(&x.t()?.contiguous()?)?.t()?.contiguous()
    }
}

/// A sign for each index (SplitMix64).
fn is_negative(index: u64) -> bool {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) & 1 == 1
}

/// A Hadamard matrix of order n, row by row: the Kronecker product S ⊗ P of Sylvester's matrix of a power of 2,
/// S_ab = (−1)^(number of bits that a and b share), and Paley's of order m = q + 1, q a prime and 3 modulo 4, the
/// smallest with which it comes out; or S alone. With χ(k) = 1 for squares modulo q, −1 for others and 0 for 0,
///
/// ```text
/// P = I + [ 0  1ᵀ ]
///         [−1  χ(i − j) ]
/// ```
///
/// None where n is no such product.
fn hadamard(n: usize) -> Option<Vec<i8>> {
    if n == 0 {
        return None;
    }
    let powers = (0..=n.trailing_zeros()).rev().map(|k| 1_usize << k);
    let (power, paley) = powers
        .map(|power| (power, n / power))
        .find_map(|(power, m)| match m {
            1 => Some((power, vec![1])),
            _ => Some((power, paley(m)?)),
        })?;
    let m = n / power;
    let entry = |i: usize, j: usize| {
        let shared = ((i / m) & (j / m)).count_ones();
        let entry = paley[(i % m) * m + j % m];
        if shared.is_multiple_of(2) {
            entry
        } else {
            -entry
        }
    };
    Some((0..n * n).map(|at| entry(at / n, at % n)).collect())
}

/// Paley's matrix of order m, if m − 1 is a prime, and 3 modulo 4.
fn paley(m: usize) -> Option<Vec<i8>> {
    let q = m.checked_sub(1)?;
    let is_prime = q > 2 && (2..).take_while(|d| d * d <= q).all(|d| q % d != 0);
    if !is_prime || q % 4 != 3 {
        return None;
    }
    let mut chi = vec![-1_i8; q];
    (1..q).for_each(|k| chi[k * k % q] = 1);
    chi[0] = 0;
    let entry = |i: usize, j: usize| match (i, j) {
        _ if i == j => 1,
        (0, _) => 1,
        (_, 0) => -1,
        _ => chi[(q + i - j) % q],
    };
    Some((0..m * m).map(|at| entry(at / m, at % m)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_hadamard_matrices_are_orthogonal() {
        // Of the hidden states and the heads of models: SmolLM2, Llama, Qwen and others.
        for n in [
            1, 2, 4, 8, 12, 16, 24, 64, 80, 96, 128, 192, 576, 896, 960, 1536,
        ] {
            let h = hadamard(n).unwrap();
            assert!(h.iter().all(|entry| entry.abs() == 1));
            let row = |i: usize| &h[i * n..(i + 1) * n];
            for i in 0..n {
                for j in (0..n).step_by(1 + n / 50) {
                    let product: i64 = row(i)
                        .iter()
                        .zip(row(j))
                        .map(|(a, b)| i64::from(a * b))
                        .sum();
                    assert_eq!(product, if i == j { n as i64 } else { 0 }, "{n}: {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn there_are_none_of_other_orders() {
        for n in [0, 3, 6, 9, 10, 50, 100] {
            assert!(hadamard(n).is_none(), "{n}");
        }
    }

    #[test]
    fn a_rotation_keeps_products_and_spreads_what_is_large() {
        let rotation = Rotation::new(24).unwrap().unwrap();
        let x: Vec<f32> = (0..6 * 48).map(|i| (i as f32 * 1.7).sin()).collect();
        let x = Tensor::from_vec(x, (6, 48), &Device::Cpu).unwrap();
        let rotated = rotation.rows(&x).unwrap();
        let products = |x: &Tensor| {
            let products = x.matmul(&x.t().unwrap()).unwrap();
            products.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (a, b) in products(&rotated).into_iter().zip(products(&x)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        let turned = rotation.columns(&x.t().unwrap()).unwrap().t().unwrap();
        assert_eq!(
            turned.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            rotated.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );

        let mut spike = vec![0.0_f32; 24];
        spike[5] = 1.0;
        let spike = Tensor::from_vec(spike, (1, 24), &Device::Cpu).unwrap();
        let spread = rotation.rows(&spike).unwrap().flatten_all().unwrap();
        for x in spread.to_vec1::<f32>().unwrap() {
            assert_eq!(x.abs(), (1.0 / 24_f64.sqrt()) as f32);
        }
    }
}
