"""Inputs that are chosen to hurt."""

import math

import ml_dtypes
import numpy as np

F16, F32, F64 = (np.dtype(t) for t in ("f2", "f4", "f8"))
BF16 = np.dtype(ml_dtypes.bfloat16)
np.seterr(all="ignore")

finfo = ml_dtypes.finfo


def specials(dt, infinities):
    """Zeros, the ends of the normal and subnormal numbers, and around the integer types' ends."""
    fi = finfo(dt)
    values = [0.0, float(fi.max), float(fi.smallest_normal), float(fi.smallest_subnormal), 0.5, 1.0,
              2147483520.0, 2147483648.0, 4e9, 1e30]
    values = [v for v in values if v <= float(fi.max)] + ([np.inf] if infinities else [])
    return np.array([sign * v for v in values for sign in (1, -1)]).astype(dt)


def hurt(s, z, bounds, dt, rng, shape, infinities=False, limit=None):
    """Values of this shape, most of them at, and one and two ulp beside, the points where the code
    changes, (k + 1/2 - z)*s, or at k - z steps; from all codes, and for wide ranges many from their ends
    and around zero. The others are anywhere, or special.

    s and z broadcast. limit: none with |x/s| at or over it, but 0 instead."""
    s, z, n = np.asarray(s, F64), np.asarray(z, F64), math.prod(shape)

    def pick(table):
        return np.asarray(table)[rng.integers(0, len(table), shape, np.uint8)]

    low, high = bounds[0] - 3, bounds[1] + 3
    code = rng.integers(low, high, shape, endpoint=True).astype(F64)
    if high - low > 300:
        where, near = rng.integers(0, 8, shape, np.uint8), pick(np.arange(9.0))
        for place, first in ((0, low), (1, high - 8), (2, np.floor(z) - 4)):
            code = np.where(where == place, first + near, code)
    half = pick([0.5, 0.5, 0.5, 0.5, 0.0, np.nan])
    half = np.where(np.isnan(half), rng.random(shape, np.float32), half)
    x = ((code + half - z) * s).astype(dt)
    integer = {2: np.int16, 4: np.int32, 8: np.int64}[dt.itemsize]
    x = (x.view(integer) + pick(np.array([0, 1, -1, 0, 2, -2], integer))).view(dt)
    x[~np.isfinite(x)] = 0
    special = specials(dt, infinities)
    count = min(len(special), n // 4) if n < 1000 else n // 64
    at = rng.permutation(n)[:count] if n < 1000 else rng.integers(0, n, count)
    x.ravel()[at] = rng.permutation(special)[:count] if n < 1000 else rng.choice(special, count)
    if limit is not None:
        x[np.abs(x.astype(F64) / s) >= limit] = 0
    return x


SCALES = [1.0, 0.5, 2.0**-7, 0.1, 1 / 3, 0.00214854861, 2.0**-23, 7.77, 0.99999994, 1.0000001, 0.0235294122]
FAR_SCALES = [1e-30, 2.0**-100, 1e30, 2.0**100, 1e37]


def scales(dt, rng, n, far=True):
    """Powers of two and others, near and far."""
    s = SCALES + (FAR_SCALES if far and dt not in (F16, BF16) else []) + list(np.exp2(rng.uniform(-13, 8, 6)))
    s = rng.permutation(np.array(s).astype(dt))
    s = s[(s.astype(F64) > 0) & np.isfinite(s.astype(F64))]
    return s[:n]


def zero_points(lo, hi):
    """Both ends, even and odd ones."""
    inside = [z for z in (0, 3, lo + 1, hi - 1) if lo <= z <= hi]
    return [lo, hi] + inside


def data(dt, rng, k, rows=4, columns=10):
    """The k-th kind of calibration data."""
    x = rng.standard_normal((rows, columns))
    kinds = [
        lambda: x,
        lambda: x * 2.0**-9 + 0.7 * 2.0**-9,
        lambda: np.abs(x) * 3,
        lambda: np.concatenate([x[:1], 0 * x[:1], 0 * x[:1] + 0.3, x[3:] * 100]),
        lambda: x * 77 - 300,
        lambda: -np.abs(x),
        lambda: 0 * x,
        lambda: 0 * x - 2.7,
        lambda: x * (float(finfo(dt).max) / 40),
        lambda: x * (float(finfo(dt).smallest_normal) / 8),
        lambda: np.round(x * 4) / 4,
        lambda: x * np.exp2(rng.uniform(-12, 6, (rows, 1))),
        lambda: x + 5,
        lambda: x * float(finfo(dt).smallest_normal) * 300,
        lambda: rng.uniform(-0.9, 0.9, x.shape) * float(finfo(dt).max),
    ]
    return kinds[k % len(kinds)]().astype(dt)


KINDS = 15


class Kinds:
    """One kind of calibration data after another: for parameters along an axis, its groups are rows
    or columns."""

    def __init__(self, cases, rng):
        self.k, self.cases, self.rng = -1, cases, rng

    def next(self, dt, axis=None, rows=None, columns=None):
        self.k += 1
        x = data(dt, self.rng, self.k, rows or self.cases.channels, columns or self.cases.columns)
        return np.ascontiguousarray(x.T) if axis == 1 else x


def along(p, axis):
    """Per-channel parameters of a matrix so that they broadcast."""
    p = np.asarray(p)
    return p.reshape(()) if axis is None else p.reshape(-1, 1) if axis == 0 else p.reshape(1, -1)


def channel(axis):
    return None if axis is None else ("channel", axis)


def groupings(x, axis):
    """What shares parameters in a per-tensor or per-channel scheme of a matrix."""
    return [x] if axis is None else list(x if axis == 0 else x.T)
