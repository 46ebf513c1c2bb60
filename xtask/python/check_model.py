"""Evaluates chopi's formulas in NumPy on a model, and compares with what the program wrote.

Input: the model, the quantized and the dequantized file, and the scheme. Output: one JSON object
with the counts of what was compared and of what differs. The formulas are those of the
documentation of `Convention::CHOPI`, written down once more, without a look at the program.
"""

import argparse
import json

import numpy as np
from safetensors import safe_open

SMALLEST = np.finfo(np.float32).tiny  # the smallest normal number


def blocks(x, granularity, group_size):
    """The elements as (groups, elements of one), padded by repetition, and the groups' shape."""
    if granularity == "tensor":
        return x.reshape(1, -1), (1,)
    if granularity == "channel":
        return x.reshape(x.shape[0], -1), (x.shape[0],)
    *others, length = x.shape
    groups = -(-length // group_size)
    padding = [(0, 0)] * len(others) + [(0, groups * group_size - length)]
    return np.pad(x, padding, "edge").reshape(-1, group_size), (*others, groups)


def unblocked(values, shape, granularity, group_size):
    """The tensor of this shape whose `blocks` these are."""
    if granularity != "group":
        return values.reshape(shape)
    *others, length = shape
    return values.reshape(*others, -1)[..., :length]


def parameters(low, high, qmin, qmax, symmetric):
    """The scale (f32) and the zero point of each group with this range."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    largest = np.maximum(np.abs(low), np.abs(high))
    if symmetric:
        scale = np.maximum(largest / qmax, SMALLEST)
        zero_point = np.zeros_like(scale)
    else:
        scale = (high - low) / (qmax - qmin)
        scale = np.maximum(scale, largest * 2.0**-24)
        scale = np.maximum(scale, SMALLEST)
        zero_point = np.rint(qmin - low / scale)
    # A group whose elements are all equal comes back exactly.
    constant = low == high
    scale = np.where(constant, np.where(largest == 0, 1, largest), scale)
    if not symmetric:
        sign = np.sign(low)
        zero_point = np.where(constant, np.clip(sign, qmin, qmax) - sign, zero_point)
    return scale.astype(np.float32), zero_point.astype(np.int64)


def quantize(x, scale, zero_point, qmin, qmax):
    quotient = x / scale[:, None]
    assert quotient.dtype == np.float32
    # At most 24 + 26 bits: the sum is exact in f64, or far from a tie.
    assert np.abs(zero_point).max() < 2**26
    total = quotient.astype(np.float64) + zero_point[:, None]
    return np.clip(np.rint(total), qmin, qmax).astype(np.int64)


def dequantize(codes, scale, zero_point):
    # At most 27 + 24 bits: the product is exact in f64, and rounded once.
    difference = (codes - zero_point[:, None]).astype(np.float64)
    return (difference * scale.astype(np.float64)[:, None]).astype(np.float32)


def pack(codes, bits):
    """Rows of codes as bytes: code i of a row from bit i·bits on, the lowest bit of a byte first."""
    rows = codes.reshape(codes.shape[0], -1)
    fields = (rows[..., None] >> np.arange(bits)) & 1
    return np.packbits(fields.reshape(len(rows), -1).astype(np.uint8), axis=1, bitorder="little")


def differing(a, b):
    """How many elements are not equal to the last bit."""
    if a.shape != b.shape:
        return max(a.size, b.size, 1)
    if a.dtype.kind == "f":
        unsigned = f"u{a.dtype.itemsize}"
        return int(np.count_nonzero(a.view(unsigned) != b.astype(a.dtype).view(unsigned)))
    return int(np.count_nonzero(a != b))


def sqnr(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    noise = np.sum((x - y) ** 2)
    return float(10 * np.log10(np.sum(x**2) / noise)) if noise > 0 else float("inf")


class Check:
    def __init__(self):
        self.counts = dict(codes=0, scales=0, zero_points=0, dequantized=0, others=0)
        self.values = 0
        self.tensors = {}
        self.notes = []

    def equal(self, what, name, expected, actual):
        count = differing(expected, actual)
        self.counts[what] += count
        if count:
            self.notes.append(f"{name}: {count} of {expected.size} {what} differ")

    def missing(self, what, name):
        self.counts[what] += 1
        self.notes.append(f"{name}: {what} missing")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("quantized")
    parser.add_argument("dequantized")
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--granularity", choices=["tensor", "channel", "group"], required=True)
    parser.add_argument("--group-size", type=int, default=128)
    a = parser.parse_args()

    half = 2 ** (a.bits - 1)
    qmin, qmax = (-half, half - 1) if a.symmetric else (0, 2 * half - 1)
    check = Check()
    of_quantized = set()
    with (
        safe_open(a.model, "np") as model,
        safe_open(a.quantized, "np") as quantized,
        safe_open(a.dequantized, "np") as dequantized,
    ):
        names, there = set(model.keys()), set(quantized.keys())
        if names != set(dequantized.keys()):
            difference = names ^ set(dequantized.keys())
            check.missing("others", f"the dequantized file: {sorted(difference)}")
        for name in sorted(names & set(dequantized.keys())):
            x, y = (file.get_tensor(name) for file in (model, dequantized))
            is_quantized = x.dtype == np.float32 and x.ndim >= 2
            kept = f"{name}.codes" if is_quantized else name
            if kept not in there:
                check.missing("codes" if is_quantized else "others", name)
                continue
            q = quantized.get_tensor(kept)
            of_quantized.add(kept)
            if not is_quantized:
                check.equal("others", name, x, q)
                check.equal("others", name, x, y)
                if x.dtype != q.dtype or x.dtype != y.dtype:
                    check.missing("others", f"{name}: dtype {x.dtype}")
                continue

            grouped, groups = blocks(x, a.granularity, a.group_size)
            scale, zero_point = parameters(
                grouped.min(axis=1), grouped.max(axis=1), qmin, qmax, a.symmetric
            )
            codes = quantize(grouped, scale, zero_point, qmin, qmax)
            back = dequantize(codes, scale, zero_point)
            codes, back = (
                unblocked(values, x.shape, a.granularity, a.group_size) for values in (codes, back)
            )

            check.values += x.size
            packed = pack(codes, a.bits) if a.bits < 8 else codes
            check.equal("codes", name, packed, q)
            check.equal("dequantized", name, back, y)
            if q.dtype.kind not in "iu" or q.dtype.itemsize != 1 or y.dtype != np.float32:
                check.missing("others", f"{name}: dtypes {q.dtype} and {y.dtype}")
            if f"{name}.scale" in there:
                actual = quantized.get_tensor(f"{name}.scale")
                of_quantized.add(f"{name}.scale")
                check.equal("scales", name, scale.reshape(groups), actual)
                if actual.dtype != np.float32:
                    check.missing("others", f"{name}.scale: dtype {actual.dtype}")
            else:
                check.missing("scales", name)
            if f"{name}.zero_point" in there:
                actual = quantized.get_tensor(f"{name}.zero_point")
                of_quantized.add(f"{name}.zero_point")
                check.equal("zero_points", name, zero_point.reshape(groups), actual)
                if actual.dtype != np.int32 or a.symmetric:
                    check.missing("others", f"{name}.zero_point: dtype {actual.dtype}")
            elif not a.symmetric:
                check.missing("zero_points", name)
            check.tensors[name] = sqnr(x, back)
        if there != of_quantized:
            check.missing("others", f"the quantized file: {sorted(there ^ of_quantized)}")

    result = dict(values=check.values, sqnr_db=check.tensors, notes=check.notes, **check.counts)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
