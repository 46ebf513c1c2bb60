"""Writes vectors.safetensors beside this file: GPTQ, AWQ and SmoothQuant in NumPy's float64, by their definitions.

    python make_vectors.py [--seed N] [--outputs N] [--inputs N] [--rows N] [--out FOLDER]

Needs numpy and safetensors. GPTQ follows gptq.py of IST-DASLab/gptq (static groups), AWQ auto_scale.py of
mit-han-lab/llm-awq with Tr(D H D^T) for the loss of a block, SmoothQuant smooth.py of mit-han-lab/smoothquant. To
compare chopi with them on a layer as large as a real one:

    python make_vectors.py --seed 1 --outputs 576 --inputs 1536 --rows 4096 --out /tmp/vectors
    CHOPI_VECTORS=/tmp/vectors cargo test --release -p chopi-ptq --test vectors -- --nocapture

The file holds the inputs "x", the weights "w" and "v" of two layers that take them, and for each case I of the
metadata's "cases" its codes "I.codes" and its error "I.error", Tr(D H D^T) / Tr(W H W^T).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def some_inputs(rng, rows, channels):
    """Correlated channels of different sizes, a few of them large, as those of transformers are."""
    hidden = rng.standard_normal((rows, 8)) @ rng.standard_normal((8, channels))
    sizes = np.exp(rng.normal(0, 0.7, channels))
    sizes[3::29] *= 12
    return ((hidden + 1.5 * rng.standard_normal((rows, channels))) * sizes).astype(np.float32)


def parameters(w, bits, symmetric, group):
    """Scale and zero point of each weight, by the formulas of chopi's own convention on the range of its group."""
    scale, zero = np.empty_like(w), np.empty(w.shape)
    for start in range(0, w.shape[1], group):
        part = w[:, start : start + group].astype(np.float64)
        low, high = part.min(1, keepdims=True), part.max(1, keepdims=True)
        if symmetric:
            s, z = np.maximum(-low, high) / (2 ** (bits - 1) - 1), 0
        else:
            s = (high - low) / (2**bits - 1)
            z = np.rint(0 - low / s)
        scale[:, start : start + group], zero[:, start : start + group] = s, z
    return scale, zero


def codes_of(x, scale, zero, bits, symmetric):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    quotient = x.astype(np.float32) / scale
    return np.clip(np.rint(quotient.astype(np.float64) + zero), low, high)


def values_of(codes, scale, zero):
    return ((codes - zero).astype(np.float32) * scale).astype(np.float64)


def error(w, values, h):
    d = w - values
    return np.einsum("oi,ij,oj->", d, h, d, optimize=True)


def gptq(w, h, damping, by_activation, bits, symmetric, group):
    scale, zero = parameters(w, bits, symmetric, group)
    n = w.shape[1]
    order = np.argsort(-np.diag(h), kind="stable") if by_activation else np.arange(n)
    a = h[order][:, order] + damping * np.mean(np.diag(h)) * np.eye(n)
    upper = np.linalg.cholesky(np.linalg.inv(a)).T
    w, codes = w.astype(np.float64), np.empty(w.shape)
    for i, j in enumerate(order):
        codes[:, j] = codes_of(w[:, j], scale[:, j], zero[:, j], bits, symmetric)
        lost = (w[:, j] - values_of(codes[:, j], scale[:, j], zero[:, j])) / upper[i, i]
        w[:, order[i + 1 :]] -= np.outer(lost, upper[i, i + 1 :])
    return codes, scale, zero


def awq(weights, x, h, bits, symmetric, group):
    mean, best = np.abs(x.astype(np.float64)).mean(0), (np.inf, None)
    for step in range(20):
        s = np.maximum(mean ** (step / 20), 1e-4)
        s /= np.sqrt(s.max() * s.min())
        total = 0
        for w in weights:
            scaled = (w.astype(np.float64) * s).astype(np.float32)
            scale, zero = parameters(scaled, bits, symmetric, group)
            values = values_of(codes_of(scaled, scale, zero, bits, symmetric), scale, zero)
            total += error(w.astype(np.float64), values / s, h)
        if total < best[0]:
            best = total, s
    return best


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--outputs", type=int, default=48)
    args.add_argument("--inputs", type=int, default=96)
    args.add_argument("--rows", type=int, default=200)
    args.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = args.parse_args()
    rng = np.random.default_rng(args.seed)
    x = some_inputs(rng, args.rows, args.inputs)
    w, v = (rng.normal(0, 0.04, (args.outputs, args.inputs)).astype(np.float32) for _ in "wv")
    h = x.T.astype(np.float64) @ x.astype(np.float64) / args.rows
    tensors, cases = {"x": x, "w": w, "v": v}, []
    for bits, symmetric, group in [(4, True, 32), (4, False, 32), (3, False, 32), (2, True, 32), (4, True, args.inputs)]:
        for by_activation, damping in [(True, 0.01), (False, 0.05)]:
            codes, scale, zero = gptq(w, h, damping, by_activation, bits, symmetric, group)
            wide = w.astype(np.float64)
            relative = error(wide, values_of(codes, scale, zero), h) / error(wide, 0, h)
            case = {"method": "gptq", "bits": bits, "symmetric": symmetric, "group": group}
            order = "" if by_activation else ":natural"
            damped = "" if damping == 0.01 else f":damping={damping}"
            cases.append(case | {"method": f"gptq{order}{damped}"})
            tensors[f"{len(cases) - 1}.codes"] = codes.astype(np.int8)
            tensors[f"{len(cases) - 1}.error"] = np.array([relative])
        total, scales = awq([w, v], x, h, bits, symmetric, group)
        cases.append({"method": "awq", "bits": bits, "symmetric": symmetric, "group": group})
        tensors[f"{len(cases) - 1}.scales"] = scales
        tensors[f"{len(cases) - 1}.error"] = np.array([total])
    for alpha in [0.5, 0.8]:
        largest = np.maximum(np.abs(w).max(0), np.abs(v).max(0)).astype(np.float64)
        cases.append({"method": f"smoothquant:{alpha}"})
        activations = np.abs(x).max(0).astype(np.float64)
        tensors[f"{len(cases) - 1}.scales"] = np.maximum(activations**alpha / largest ** (1 - alpha), 1e-5)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "vectors.safetensors", {"cases": json.dumps(cases)})


if __name__ == "__main__":
    main()
