"""Writes what the Python package `gguf` makes of numbers that look random.

Argument: the file to write, `crates/chopi-formats/tests/vectors/gguf.json`. Needs `gguf==0.19.0`.

For each type of blocks that floats are quantized to: 32 floats, the block that `gguf.quants.quantize` gives, and the
values that `gguf.quants.dequantize` gives for that; for each type that is only read a block of bytes at random and
its values. Numbers are hexadecimal, as they lie in memory.
"""

import json
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

QUANTIZED = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]
READ = [T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
# Where the f16 of a block of a type that is only read lie.
HALVES = {T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}


def floats(rng):
    """Blocks of 32 floats: of all sizes, with ties, equal ones, of one sign, with one large one."""
    yield rng.normal(size=32)
    yield rng.normal(size=32) * 1e-6
    yield rng.normal(size=32) * 1e4
    yield rng.integers(-16, 17, size=32) / 2
    yield rng.integers(-127, 128, size=32) * 1.0
    yield np.full(32, -3.25)
    yield np.zeros(32)
    yield rng.uniform(1, 2, size=32)
    yield -rng.uniform(1, 2, size=32)
    large = rng.normal(size=32)
    large[17] = -40
    yield large
    ties = rng.normal(size=32)
    ties[[3, 9]] = [5.5, -5.5]
    yield ties
    yield np.where(np.arange(32) == 31, 6e4, rng.normal(size=32))
    # So small that f16 keeps nothing of the scale.
    yield rng.normal(size=32) * 1e-12


def block(kind, rng):
    size = gguf.GGML_QUANT_SIZES[kind][1]
    data = rng.integers(0, 256, size=size, dtype=np.uint8)
    for at in HALVES[kind]:
        data[at : at + 2] = np.array([rng.normal() * 0.1], np.float16).view(np.uint8)
    return data


def values(data, kind):
    return gguf.quants.dequantize(data.reshape(1, -1), kind).tobytes().hex()


def main(path):
    rng = np.random.default_rng(18)
    vectors = {}
    for kind in QUANTIZED:
        rows = vectors[kind.name] = []
        for x in floats(rng):
            x = x.astype(np.float32)
            data = gguf.quants.quantize(x.reshape(1, 32), kind)
            rows.append({"x": x.tobytes().hex(), "block": data.tobytes().hex(), "values": values(data, kind)})
    for kind in READ:
        blocks = [block(kind, rng) for _ in range(3)]
        vectors[kind.name] = [{"block": data.tobytes().hex(), "values": values(data, kind)} for data in blocks]
    with open(path, "w") as file:
        json.dump(vectors, file, indent=1)
        file.write("\n")


main(sys.argv[1])
