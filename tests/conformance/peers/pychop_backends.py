"""pychop's backends: NumPy, JAX and PyTorch."""

import numpy as np

from inputs import BF16, F16, F32, F64, Kinds, along, channel, hurt


def bounds_of(bits, symmetric):
    return (-(2 ** (bits - 1)) if symmetric else 0, 2 ** (bits - 1) - 1)


def calibrate_once(cases, rng, module, to, bits_of):
    """The NumPy and the JAX backend, which calibrate once and keep their parameters. Left out: zero
    points that are so far away that pychop's 8-bit and 16-bit codes wrap around when they are subtracted."""
    kinds = Kinds(cases, rng)
    for dt, (golden, live) in bits_of.items():
        for bits in live if cases.live else golden:
            for symmetric in (False, True):
                for axis in (None, 0, 1):
                    # With 7 bits some zero points are a little beyond 2^24.
                    for _ in cases.rounds({8: 3, 7: 5}.get(bits, 1)):
                        d = kinds.next(dt, axis)
                        quantizer = module.Chopi_(bits=bits, symmetric=symmetric, per_channel=axis is not None, axis=axis or 0)
                        quantizer.calibrate(to(d))
                        s = np.asarray(quantizer.scale).ravel()
                        z = np.zeros(1) if symmetric else np.asarray(quantizer.zero_point).ravel().astype("i8")
                        bounds = bounds_of(bits, symmetric)
                        settings = dict(bits=bits, symmetric=symmetric, bounds=bounds, groups=channel(axis))
                        if (np.abs(z) >= 2**31 - 2**16).any() and np.isfinite(s.astype(F64)).all():
                            continue
                        # 1/s overflows, and 0/s becomes NaN.
                        if cases.convention == "pychop-jax" and dt == F16 and np.isinf((F32.type(1) / s.astype(F32)).astype(F16)).any():
                            cases.refuse(d, **settings)
                            continue
                        x = hurt(along(s, axis), along(z, axis) if z.size > 1 else z[0], bounds, dt, rng, cases.shape(axis, 88),
                                 infinities=True)
                        q = quantizer.quantize(to(x))
                        # For most codes NumPy promotes to f64; what is kept is that product, rounded.
                        y = np.asarray(quantizer.dequantize(q))
                        y = (y.astype(F32) if y.dtype == F64 and dt != F64 else y).astype(dt)
                        cases.add(x, s, z, data=d, codes=np.asarray(q), dequantized=y, **settings)


def make_pychop(cases, rng):
    """NaN is left out: pychop has no code for it."""
    import pychop.np.integer as module

    every = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 25)
    calibrate_once(cases, rng, module, np.asarray,
                   {F32: ((8, 4, 2, 5, 12, 16), every), F64: ((8, 3, 16), (2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 25)), F16: ((8, 4, 2, 11), every[:10])})


def make_pychop_jax(cases, rng):
    import jax.numpy as jnp
    import pychop.jx.integer as module

    calibrate_once(cases, rng, module, jnp.asarray,
                   {F32: ((8, 4, 7, 16), (2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 25)), F16: ((8, 4, 11), (2, 3, 4, 5, 6, 7, 8, 11)),
                    BF16: ((8, 4, 2), (2, 3, 4, 5, 6, 7, 8))})


def make_pychop_torch(cases, rng):
    """This backend calibrates on every quantize: so the values lie in the calibrated range."""
    import pychop.tch.integer as module

    from peers.pytorch import from_torch, to_torch

    kinds = Kinds(cases, rng)
    bits_of = {F32: ((8, 8, 8, 4, 2, 12, 16), (2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 25)), F64: ((8, 8, 3, 16), (2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 25)),
               F16: ((8, 8, 4, 11), (2, 3, 4, 5, 6, 7, 8, 11)), BF16: ((8, 8, 4, 2), (2, 3, 4, 5, 6, 7, 8))}
    for dt, (golden, live) in bits_of.items():
        for bits in live if cases.live else golden:
            for symmetric in (False, True):
                for axis in (None, 0, 1):
                    bounds = bounds_of(bits, symmetric)
                    for _ in cases.rounds(1):
                        d = kinds.next(dt, 0) if axis is not None else kinds.next(dt).reshape(1, -1)
                        shape = cases.shape(None if axis is None else 0, 88)
                        low, high = d.astype(F64).min(1, keepdims=True), d.astype(F64).max(1, keepdims=True)
                        s = np.maximum(high - low, 1e-5) / (bounds[1] - bounds[0])
                        z = 0 if symmetric else bounds[0] - low / s
                        x = hurt(s, z, bounds, dt, rng, (len(d), shape[-1]))
                        wide = x.astype(F64)
                        x = np.where(wide < low, low, np.where(wide > high, high, wide)).astype(dt)
                        x[:, :1], x[:, 1:2] = low.astype(dt), high.astype(dt)
                        x = rng.permuted(x, axis=1) if dt != BF16 else rng.permuted(x.view("u2"), axis=1).view(BF16)
                        x = x.ravel() if axis is None else np.ascontiguousarray(x.T) if axis == 1 else x
                        quantizer = module.Chopi_(bits=bits, symmetric=symmetric, per_channel=axis is not None, axis=axis or 0)
                        q = quantizer.quantize(to_torch(x))
                        s = from_torch(quantizer.scale).ravel()
                        z = np.zeros(1) if symmetric else from_torch(quantizer.zero_point).ravel()
                        cases.add(x, s, z, data=x, codes=from_torch(q), dequantized=from_torch(quantizer.dequantize(q)), bits=bits,
                                  symmetric=symmetric, bounds=bounds, groups=channel(axis))
