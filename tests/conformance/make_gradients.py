"""Writes gradients.safetensors beside this file: fake quantization by PyTorch, forward and backward.

    python make_gradients.py [--seed N] [--out FOLDER]

Needs torch of requirements.txt, on an x86-64 CPU with AVX2. Case I has the tensors I.x, I.dy,
I.scale, I.zero_point (real numbers), and what PyTorch gives: I.y, I.dx and, where they are learned,
I.dscale and I.dzero_point. The metadata entry "cases" is a JSON list of the cases' settings.

Learned scales of one element a channel show each element's term to the bit; longer channels and
whole tensors show the sums, which PyTorch takes in f32 in an order of its own. I.sums is the sum of
the terms' magnitudes, to measure that by.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def inputs(rng, shape, scale, zero, lo, hi):
    """Ties, their neighbours, values around both bounds, infinities, and anything else."""
    s, z = np.broadcast_to(scale, shape), np.broadcast_to(zero, shape)
    steps = rng.integers(2 * lo - 4, 2 * hi + 5, shape) / 2 - z
    x = (steps * s).astype(np.float32)
    x = np.nextafter(x, rng.choice([-np.inf, np.inf], shape).astype(np.float32))
    kind = rng.integers(0, 4, shape)
    x = np.where(kind == 0, (steps * s).astype(np.float32), x)
    x = np.where(kind == 1, rng.uniform(lo - z - 2, hi - z + 2, shape) * s, x).astype(np.float32)
    wild = rng.random(shape) < 0.02
    # Per channel PyTorch's codes of 2^63 and more overflow to the smallest one, where chopi saturates.
    large = [np.inf, -np.inf, 1e30, -1e30] if np.size(scale) == 1 else [1e12, -1e12]
    values = np.array([*large, 0.0, -0.0], np.float32)
    return np.where(wild, rng.choice(values, shape), x).astype(np.float32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=Path(__file__).parent)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    cases, tensors = [], {}

    def add(kind, x, scale, zero, bounds, axis, factor, dtype=torch.float32):
        lo, hi = bounds
        learned = kind == "learned"
        x = torch.from_numpy(x).to(dtype).requires_grad_()
        dy = torch.from_numpy(rng.standard_normal(x.shape).astype(np.float32)).to(dtype)
        s = torch.tensor(np.atleast_1d(scale), dtype=torch.float32, requires_grad=learned)
        z = torch.tensor(np.atleast_1d(zero), dtype=torch.float32, requires_grad=learned)
        if learned and axis is None:
            y = torch._fake_quantize_learnable_per_tensor_affine(x, s, z, lo, hi, factor)
        elif learned:
            y = torch._fake_quantize_learnable_per_channel_affine(x, s, z, axis, lo, hi, factor)
        elif axis is None:
            y = torch.fake_quantize_per_tensor_affine(x, s.item(), int(z.item()), lo, hi)
        else:
            y = torch.fake_quantize_per_channel_affine(x, s, z.int(), axis, lo, hi)
        y.backward(dy)
        i = len(cases)
        cases.append(dict(kind=kind, qmin=lo, qmax=hi, axis=axis, factor=factor,
                          float={torch.float32: "f32", torch.float64: "f64",
                                 torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]))
        tensors.update({f"{i}.x": x, f"{i}.dy": dy, f"{i}.scale": s, f"{i}.zero_point": z,
                        f"{i}.y": y, f"{i}.dx": x.grad})
        if learned:
            tensors.update({f"{i}.dscale": s.grad, f"{i}.dzero_point": z.grad})
            # The magnitudes: the same operation on each element as a channel of its own.
            flat = x.detach().reshape(-1, 1)  # of one dimension, PyTorch sums over all channels
            group = torch.zeros(x.shape, dtype=torch.long)
            if axis is not None:
                group = group + torch.arange(x.shape[axis]).view(
                    [-1 if a == axis else 1 for a in range(x.dim())])
            group = group.reshape(-1)
            es = s.detach()[group].clone().requires_grad_()
            ez = z.detach()[group].clone().requires_grad_()
            torch._fake_quantize_learnable_per_channel_affine(
                flat, es, ez, 0, lo, hi, factor).backward(dy.reshape(-1, 1))
            sums = torch.zeros(2, len(s), dtype=torch.float64)
            sums[0].index_add_(0, group, es.grad.double().abs())
            sums[1].index_add_(0, group, ez.grad.double().abs())
            tensors[f"{i}.sums"] = sums

    ranges = [(-128, 127), (0, 255), (-8, 7), (0, 15), (-2, 1), (0, 3)]
    for lo, hi in ranges:
        scale = np.float32(rng.uniform(0.001, 0.3))
        for zero in {0 if lo < 0 else lo, int(rng.integers(lo, hi + 1))}:
            x = inputs(rng, (40,), scale, zero, lo, hi)
            add("fixed", x, scale, zero, (lo, hi), None, 1.0)
            finite = np.where(np.isfinite(x), x, 1).astype(np.float32)
            for dtype in (torch.float16, torch.bfloat16):
                small = np.clip(finite, -60000, 60000)
                add("fixed", small, scale, zero, (lo, hi), None, 1.0, dtype)
        for shape, axis in [((6, 7), 0), ((2, 5, 3), 1), ((3, 4), 1)]:
            channels = shape[axis]
            scales = rng.uniform(0.001, 0.3, channels).astype(np.float32)
            zeros = rng.integers(lo, hi + 1, channels)
            view = [-1 if a == axis else 1 for a in range(len(shape))]
            x = inputs(rng, shape, scales.reshape(view), zeros.reshape(view), lo, hi)
            add("fixed", x, scales, zeros, (lo, hi), axis, 1.0)
            real = np.clip(zeros + rng.uniform(-0.5, 0.5, channels), lo, hi).astype(np.float32)
            rounded = np.rint(real).reshape(view)
            x = inputs(rng, shape, scales.reshape(view), rounded, lo, hi)
            factor = float(1 / np.sqrt(x.size / channels * hi))
            add("learned", x, scales, real, (lo, hi), axis, factor)
        # One element a channel.
        scales = rng.uniform(0.001, 0.3, 60).astype(np.float32)
        real = rng.uniform(lo, hi, 60).astype(np.float32)
        x = inputs(rng, (60, 1), scales[:, None], np.rint(real)[:, None], lo, hi)
        add("learned", x, scales, real, (lo, hi), 0, 0.3)
        for real in (float(rng.uniform(lo, hi)), lo + 0.5, hi - 0.5):
            scale = np.float32(rng.uniform(0.001, 0.3))
            x = inputs(rng, (40,), scale, round(real), lo, hi)
            add("learned", x, scale, real, (lo, hi), None, float(1 / np.sqrt(40 * hi)))
    # Double precision, which PyTorch's learned scales refuse.
    for lo, hi in ranges:
        for shape, axis in [((40,), None), ((5, 8), 0), ((5, 8), 1)]:
            channels = 1 if axis is None else shape[axis]
            scales = rng.uniform(0.001, 0.3, channels).astype(np.float32)
            zeros = rng.integers(lo, hi + 1, channels)
            view = [-1 if a == axis else 1 for a in range(len(shape))]
            scale, zero = (scales[0], zeros[0]) if axis is None else (
                scales.reshape(view), zeros.reshape(view))
            x = inputs(rng, shape, scale, zero, lo, hi).astype(np.float64)
            x *= 1 + rng.integers(-2, 3, shape) * 2.0**-40
            add("fixed", x, scales, zeros, (lo, hi), axis, 1.0, torch.float64)

    tensors = {name: t.detach().contiguous().clone() for name, t in tensors.items()}
    metadata = {"cases": json.dumps(cases, separators=(",", ":")), "libraries": f"torch {version('torch')}"}
    path = Path(args.out) / "gradients.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
