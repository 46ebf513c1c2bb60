"""Runs pychop's NumPy backend on random arrays, and writes what went in and what came out.

Standard output is a sequence of records: a length (8 bytes, little-endian), then so many bytes of
safetensors. A record's metadata say the case; its tensors are

    x            the array (absent where it is that of the record before)
    scale        as pychop has it, flat
    zero_point   likewise; absent for a symmetric scheme
    codes        what quantize gives, as int16
    values       what dequantize gives, in the type that it gives; absent where a code less the zero
                 point may be beyond the 32 bits that pychop subtracts in

A record of a case in which pychop's calibration warns (a range that overflows, a zero point that
no 32-bit integer holds) has `x` alone, and `warning` in the metadata: there is no right answer to
compare with.
"""

import argparse
import struct
import sys
import warnings

import numpy as np
from safetensors.numpy import save

import pychop

SHAPES = {
    "full": [(1_000_003,), (1009, 1040), (101, 103, 101), (31, 33, 32, 33)],
    "short": [(4099,), (61, 68), (15, 17, 17), (7, 8, 8, 10)],
}
BITS = range(2, 17)


def channels(rng, shape, axis, draw):
    """`draw(size)` for each channel along an axis (for the whole array, where it is None)."""
    if axis is None:
        return draw(rng, 1)[0]
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return draw(rng, shape[axis]).reshape(sizes)


def sign(rng, size):
    return rng.choice([-1.0, 1.0], size)


def ordinary(rng, shape, axis, dtype):
    """Normal, each channel with its spread."""
    spread = channels(rng, shape, axis, lambda rng, n: np.exp(rng.uniform(-4, 4, n)))
    return rng.standard_normal(shape) * spread


def offset(rng, shape, axis, dtype):
    """Normal, each channel around a value far from zero."""
    center = channels(rng, shape, axis, lambda rng, n: sign(rng, n) * rng.uniform(3, 1000, n))
    return rng.standard_normal(shape) + center


def constant(rng, shape, axis, dtype):
    """Each channel constant; where there are several, some are zero."""

    def draw(rng, n):
        value = sign(rng, n) * 10 ** rng.uniform(-6, -0.5, n)
        return np.where(rng.random(n) < 0.1, 0.0, value) if n > 1 else value

    return np.broadcast_to(channels(rng, shape, axis, draw), shape)


def tiny(rng, shape, axis, dtype):
    """Down to the smallest subnormal numbers, around the 1e-5 that pychop's range is kept above."""
    lowest = -45 if dtype == np.float32 else -320
    return sign(rng, shape) * 10 ** rng.uniform(lowest, -5.1, shape)


def huge(rng, shape, axis, dtype):
    """Up to a third of the type's largest number."""
    largest = 37 if dtype == np.float32 else 307
    size = channels(rng, shape, axis, lambda rng, n: 10 ** rng.uniform(largest - 20, largest, n))
    return np.clip(rng.standard_normal(shape), -8, 8) * size


def far(rng, shape, axis, dtype):
    """A constant that is more than 2^31 of pychop's smallest steps away from zero."""
    largest = 38 if dtype == np.float32 else 307
    return np.full(shape, sign(rng, 1)[0] * 10 ** rng.uniform(5, largest))


def wide(rng, shape, axis, dtype):
    """A range that the type does not hold."""
    return rng.uniform(-0.9, 0.9, shape) * np.finfo(dtype).max


def ties(rng, shape, axis, dtype, bits, symmetric):
    """Multiples of half a step, so that every other quotient lies halfway between two integers."""
    steps = 2**bits - 1 if symmetric else 2 ** (bits - 1) - 1
    halves = rng.integers(0, 2 * steps, shape, endpoint=True)
    along = halves.reshape(1, -1) if axis is None else np.moveaxis(halves, axis, 0)
    first = along.reshape(len(along), -1)  # a copy where it cannot be a view
    first[:, 0], first[:, 1] = 0, 2 * steps  # each channel has both ends of the range
    if axis is None:
        halves = first.reshape(shape)
    else:
        halves = np.moveaxis(first.reshape(along.shape), 0, axis)
    start = channels(rng, shape, axis, lambda rng, n: rng.integers(-(2**14), 2**14, n))
    return (halves / 2 + start) * 2.0 ** rng.integers(-3, 4)


def edge(rng, shape, axis, dtype, bits, symmetric):
    """A constant at about 2^31 steps, where the zero point does or does not fit 32 bits."""
    steps = 2**bits - 1 if symmetric else 2 ** (bits - 1) - 1
    near = 1 + rng.uniform(-1e-6, 1e-6)
    return np.full(shape, sign(rng, 1)[0] * near * 2.0**31 * float(dtype(1e-5)) / steps)


def emit(tensors, metadata):
    record = save(tensors, {name: str(value) for name, value in metadata.items()})
    sys.stdout.buffer.write(struct.pack("<Q", len(record)))
    sys.stdout.buffer.write(record)


def run(x, bits, symmetric, axis):
    """The tensors of a record, or the warning that pychop's calibration gives."""
    # The integer types that pychop chooses for other widths than 8 and 16 come with a UserWarning.
    warnings.simplefilter("ignore", UserWarning)
    quantizer = pychop.Chopi(
        bits=bits, symmetric=symmetric, per_channel=axis is not None, axis=axis or 0
    )
    quantizer._get_impl("numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            quantizer._impl.calibrate(x)
        except RuntimeWarning as warning:
            return None, str(warning)
    with np.errstate(all="ignore"):
        codes = quantizer.quantize(x)
        values = quantizer.dequantize(codes)
    tensors = {
        "scale": np.atleast_1d(quantizer._impl.scale).reshape(-1),
        "codes": codes.astype(np.int16),
        "values": values,
    }
    if not symmetric:
        zero_point = np.atleast_1d(quantizer._impl.zero_point).reshape(-1)
        tensors["zero_point"] = zero_point
        largest = quantizer._impl.qmax - int(zero_point.min())
        if largest > np.iinfo(np.int32).max and codes.dtype.itemsize < 4:
            del tensors["values"]
    return tensors, ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)

    # Those of the first list are the same for every number of bits.
    kinds = [ordinary, offset, constant, tiny, huge, far, wide], [ties, edge]
    for dtype in [np.float32, np.float64]:
        for kind in kinds[0] + kinds[1]:
            for shape in SHAPES[arguments.size]:
                for axis in [None, *range(len(shape))]:
                    # To pychop, per channel is per tensor in one dimension.
                    channel_axis = axis if len(shape) > 1 else None
                    x = new = None
                    for symmetric in [False, True]:
                        for bits in BITS:
                            of_case = (bits, symmetric) if kind in kinds[1] else ()
                            if x is None or of_case:
                                with np.errstate(under="ignore"):
                                    x = kind(rng, shape, channel_axis, dtype, *of_case)
                                    x = new = np.ascontiguousarray(x.astype(dtype))
                            case = {
                                "data": kind.__name__,
                                "bits": bits,
                                "symmetric": symmetric,
                                "axis": "" if axis is None else axis,
                            }
                            tensors, warning = run(x, bits, symmetric, axis)
                            if warning:
                                case["warning"] = warning
                            tensors = tensors or {}
                            if new is not None:
                                tensors["x"] = new
                                new = None
                            emit(tensors, case)


if __name__ == "__main__":
    main()
