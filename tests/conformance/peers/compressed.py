"""compressed-tensors: calculate_qparams, quantize, dequantize and fake_quantize."""

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, fake_quantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams

from inputs import BF16, F16, F32, F64, Kinds, hurt, scales, zero_points
from peers.pytorch import from_torch, to_torch


def run(x, s, z, args):
    t, ts, tz = to_torch(x), to_torch(s), to_torch(z.astype("i1"))
    q = quantize(t, ts, tz, args, dtype=torch.int8)
    y = dequantize(q, ts, tz, args)
    # Its fake-quantization keeps the codes floats, and so the sign of zeros.
    fake = from_torch(fake_quantize(t, ts, tz, args) + 0.0)
    return dict(codes=from_torch(q), dequantized=from_torch(y), fake_quantized=fake)


def make_compressed_tensors(cases, rng):
    """NaN is left out, which becomes code 0."""
    kinds = Kinds(cases, rng)
    for bits in (8, 4, 2, 3, 5, 6, 7):
        bounds = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for dt in (F32, F16, BF16, F64):
            for symmetric in (False, True):
                for strategy in ("tensor", "channel", "group"):
                    for _ in cases.rounds(1 + (bits == 8)):
                        size = (128 if cases.live else 4) if strategy == "group" else None
                        args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy=strategy, group_size=size)
                        shape = cases.shape(None if strategy == "tensor" else 0, 64)
                        d = kinds.next(dt, columns=shape[1] if size else None)
                        groups = {"tensor": None, "channel": ("channel", 0), "group": ("group", 1, size)}[strategy]
                        blocks = d.reshape({"tensor": (1, -1), "channel": (len(d), 1, -1), "group": (len(d), -1, size)}[strategy])
                        low, high = (to_torch(f(blocks.astype(F64), -1).astype(dt)) for f in (np.min, np.max))
                        s, z = (from_torch(t) for t in calculate_qparams(low, high, args))
                        if not np.isfinite(s.astype(F64)).all():
                            cases.refuse(d, bits=bits, symmetric=symmetric, bounds=bounds, groups=groups)
                            continue
                        each = (lambda p: np.repeat(p, size, axis=1)) if size else (lambda p: p)
                        x = hurt(each(s), each(z), bounds, dt, rng, shape, infinities=True)
                        cases.add(x, s, z, data=d, **run(x, s, z, args), bits=bits, symmetric=symmetric, bounds=bounds,
                                  groups=groups)
            args = QuantizationArgs(num_bits=bits, symmetric=False, strategy="tensor")
            for s in scales(dt, rng, 1):
                z = rng.choice(zero_points(*bounds))
                x = hurt(s, z, bounds, dt, rng, cases.shape(None, 64), infinities=True)
                cases.add(x, [s], [z], **run(x, np.array([s], dt), np.array([z]), args), bits=bits, symmetric=False, bounds=bounds)
