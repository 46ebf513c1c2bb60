//! The folders of compressed-tensors 0.20, which Hugging Face transformers opens.
//!
//! The weight `NAME.weight` of a linear layer, of shape [out, in], is kept as
//!
//! | | `int-quantized` | `pack-quantized` |
//! |---|---|---|
//! | codes | `NAME.weight` I8 \[out, in\] | `NAME.weight_packed` I32 \[out, ⌈in·bits/32⌉\] and `NAME.weight_shape` I64 \[2\] |
//! | scales | `NAME.weight_scale` \[1\], \[out, 1\] or \[out, groups\], of the weight's dtype | as for `int-quantized` |
//! | zero points, asymmetric | `NAME.weight_zero_point` I8, like the scales | I32 \[⌈out·bits/32⌉, 1 or groups\], packed along the first axis; per tensor I8 \[1\] |
//!
//! `quantization_config` in `config.json` says how, in groups of modules that are quantized alike
//! ([`CompressedSchemes`]). Groups of both formats make the model's `mixed-precision`.

mod config;
mod layout;
mod schemes;
mod stored;

pub use config::{Group, quantization};
pub use layout::{CodeFormat, CompressedTensors};
pub use schemes::CompressedSchemes;
pub use stored::CompressedWeight;

use chopi_core::{Granularity, packing::Packing};

/// The end of the names of weights.
pub const WEIGHT: &str = ".weight";

/// The shape that the format gives the parameters of a matrix.
pub fn params_shape(granularity: Granularity, [out, width]: [usize; 2]) -> Vec<usize> {
    match granularity {
        Granularity::PerTensor => vec![1],
        Granularity::PerChannel { .. } => vec![out, 1],
        Granularity::PerGroup { size, .. } => vec![out, width.div_ceil(size.max(1))],
    }
}

/// Packs a matrix of `rows` rows along its first axis: the words of each column, row-major again.
///
/// # Errors
/// A code that the bits do not hold.
pub fn pack_columns(packing: Packing, codes: &[i64], rows: usize) -> chopi_core::Result<Vec<u8>> {
    let columns = codes.len().checked_div(rows).unwrap_or(0);
    let transposed: Vec<i64> = (0..columns)
        .flat_map(|c| (0..rows).map(move |r| codes[r * columns + c]))
        .collect();
    let packed = packing.pack(&transposed, rows)?;
    let words = packing.row_bytes(rows) / 4;
    Ok((0..words)
        .flat_map(|w| (0..columns).flat_map(move |c| (0..4).map(move |b| (c * words + w) * 4 + b)))
        .map(|i| packed[i])
        .collect())
}

/// Unpacks a matrix of `rows` rows that [`pack_columns`] has packed.
fn unpack_columns(packing: Packing, packed: &[u8], rows: usize) -> chopi_core::Result<Vec<i64>> {
    let words = packing.row_bytes(rows) / 4;
    let columns = packed.len() / 4 / words;
    let transposed: Vec<u8> = (0..columns)
        .flat_map(|c| (0..words).map(move |w| w * columns + c))
        .flat_map(|word| packed[4 * word..4 * word + 4].iter().copied())
        .collect();
    let codes: Vec<i8> = packing.unpack(&transposed, columns, rows)?;
    let of_row = |r| (0..columns).map(move |c| c * rows + r);
    let order = (0..rows).flat_map(of_row);
    Ok(order.map(|i| i64::from(codes[i])).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_columns_come_back(
            bits in 2_u32..=8,
            rows in 1_usize..70,
            columns in 1_usize..5,
            seed in any::<u32>(),
        ) {
            let packing = Packing::compressed_tensors(bits).unwrap();
            let (low, high) = packing.bounds();
            let codes: Vec<i64> = (0..(rows * columns) as u32)
                .map(|i| {
                    let hash = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
                    low + i64::from(hash >> 8) % (high - low + 1)
                })
                .collect();
            let packed = pack_columns(packing, &codes, rows).unwrap();
            prop_assert_eq!(unpack_columns(packing, &packed, rows).unwrap(), codes);
        }
    }
}
