//! The types of the tensors of a GGUF file.

use std::fmt;

use safetensors::Dtype;

/// How ggml keeps the elements of a tensor: [`Plain`](Self::Plain) ones, or blocks along the last axis.
///
/// The block types are those of `ggml-common.h`; a block of a `K` type has 256 elements, one of another type 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlType {
    /// Elements as they are: F16, BF16, F32, F64, I8, I16, I32 or I64.
    Plain(Dtype),
    /// Blocks with scales of their own.
    Block(BlockType),
}

/// The types of blocks that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)] // The names that ggml has.
pub enum BlockType {
    /// 4 bits, x̂ = d·(q − 8).
    Q4_0,
    /// 4 bits, x̂ = d·q + m.
    Q4_1,
    /// 5 bits, x̂ = d·(q − 16).
    Q5_0,
    /// 5 bits, x̂ = d·q + m.
    Q5_1,
    /// 8 bits, x̂ = d·q.
    Q8_0,
    /// 2 bits in groups of 16, x̂ = d·s·q − dmin·m.
    Q2_K,
    /// 3 bits in groups of 16, x̂ = d·(s − 32)·(q − 4).
    Q3_K,
    /// 4 bits in groups of 32, x̂ = d·s·q − dmin·m.
    Q4_K,
    /// 5 bits in groups of 32, x̂ = d·s·q − dmin·m.
    Q5_K,
    /// 6 bits in groups of 16, x̂ = d·s·(q − 32).
    Q6_K,
    /// 8 bits, x̂ = d·q.
    Q8_K,
}

use BlockType::{Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, Q8_K};

/// The numbers of the types in `ggml.h`, of those that are read.
const PLAIN: [(u32, Dtype); 8] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];
/// The names of other types in `ggml.h`, for errors.
const OTHERS: [(u32, &str); 15] = [
    (9, "Q8_1"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl GgmlType {
    /// The type of a number of `ggml.h`.
    ///
    /// # Errors
    /// What is known of a type that is not read.
    pub(crate) fn of(number: u32) -> Result<Self, String> {
        if let Some((_, dtype)) = PLAIN.iter().find(|(n, _)| *n == number) {
            return Ok(Self::Plain(*dtype));
        }
        if let Some(block) = BlockType::ALL.into_iter().find(|b| b.number() == number) {
            return Ok(Self::Block(block));
        }
        let known = OTHERS.iter().find(|(n, _)| *n == number);
        Err(match known {
            Some((_, name)) => format!("type {name} is not read"),
            None => format!("type {number} is unknown"),
        })
    }

    /// Its number in `ggml.h`; `None` for a dtype that GGUF does not have.
    pub(crate) fn number(self) -> Option<u32> {
        match self {
            Self::Block(block) => Some(block.number()),
            Self::Plain(dtype) => PLAIN.iter().find(|(_, d)| *d == dtype).map(|(n, _)| *n),
        }
    }

    /// The elements of a block, 1 of a plain type.
    pub fn block_elements(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Block(block) => block.elements(),
        }
    }

    /// The bytes of a block, or of an element of a plain type.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Plain(dtype) => dtype.bitsize() / 8,
            Self::Block(block) => block.bytes(),
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Block(block) => block.fmt(f),
        }
    }
}

impl BlockType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K,
    ];
    /// The types that floats can be quantized to.
    pub const QUANTIZED: [Self; 5] = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0];

    fn number(self) -> u32 {
        match self {
            Q4_0 => 2,
            Q4_1 => 3,
            Q5_0 => 6,
            Q5_1 => 7,
            Q8_0 => 8,
            Q2_K => 10,
            Q3_K => 11,
            Q4_K => 12,
            Q5_K => 13,
            Q6_K => 14,
            Q8_K => 15,
        }
    }

    /// The elements of a block.
    pub fn elements(self) -> usize {
        match self {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | Q8_K => 256,
        }
    }

    /// The bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Q4_0 => 2 + 16,
            Q4_1 => 4 + 16,
            Q5_0 => 2 + 4 + 16,
            Q5_1 => 4 + 4 + 16,
            Q8_0 => 2 + 32,
            Q2_K => 16 + 64 + 4,
            Q3_K => 32 + 64 + 12 + 2,
            Q4_K => 4 + 12 + 128,
            Q5_K => 4 + 12 + 32 + 128,
            Q6_K => 128 + 64 + 16 + 2,
            Q8_K => 4 + 256 + 32,
        }
    }

    /// The bits of a code.
    pub fn bits(self) -> u32 {
        match self {
            Q2_K => 2,
            Q3_K => 3,
            Q4_0 | Q4_1 | Q4_K => 4,
            Q5_0 | Q5_1 | Q5_K => 5,
            Q6_K => 6,
            Q8_0 | Q8_K => 8,
        }
    }

    /// The value of `general.file_type` of a model whose matrices have this type: `llama_ftype` of `llama.h`.
    pub(crate) fn file_type(self) -> Option<u32> {
        match self {
            Q4_0 => Some(2),
            Q4_1 => Some(3),
            Q8_0 => Some(7),
            Q5_0 => Some(8),
            Q5_1 => Some(9),
            _ => None,
        }
    }

    /// The type of a name, such as `q4_0`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_uppercase();
        Self::ALL
            .into_iter()
            .find(|block| block.to_string() == name)
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
