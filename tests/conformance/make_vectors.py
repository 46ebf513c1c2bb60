"""Writes <convention>.safetensors beside this file: inputs and what the real libraries make of them.

    python make_vectors.py [--seed N] [--out FOLDER] [CONVENTION ...]

Needs the libraries of requirements.txt, on an x86-64 CPU with AVX2. To compare chopi with them on
other numbers than those beside this file:

    python make_vectors.py --seed 1 --out /tmp/vectors
    CHOPI_VECTORS=/tmp/vectors cargo test --test conformance -- --nocapture

Case I of a file has the tensors I.x and, where the library gives them, I.codes, I.dequantized and
I.fake_quantized (not where it equals I.dequantized); I.scale and I.zero_point are the parameters.
With I.data the library calibrated them on that tensor, without it they were given to it. The
metadata entry "cases" is a JSON list of the cases' settings, and "libraries" says the versions.
"""

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path

import ml_dtypes
import numpy as np

F16, F32, F64 = (np.dtype(t) for t in ("f2", "f4", "f8"))
BF16 = np.dtype(ml_dtypes.bfloat16)
np.seterr(all="ignore")

# ---------------------------------------------------------------------------------------- the file


class Vectors:
    """The cases of one convention."""

    def __init__(self, convention, libraries):
        self.convention, self.libraries = convention, libraries
        self.cases, self.tensors = [], {}

    def add(self, x, scale, zero_point, *, bits, symmetric, bounds, groups=None, **tensors):
        """One case. groups: None, ("channel", axis) or ("group", axis, size). tensors: data, codes,
        dequantized, fake_quantized."""
        scale, zero_point = np.asarray(scale), np.asarray(zero_point)
        x = np.asarray(x)
        shape = [1]
        if groups is not None:
            _, axis, *size = groups
            shape = list(x.shape) if size else [x.shape[axis]]
            if size:
                shape[axis] = -(-x.shape[axis] // size[0])
        scale = np.broadcast_to(scale.astype(F64), shape) if groups is None else scale.astype(F64)
        zero = np.zeros(shape) + zero_point.astype(F64).reshape(scale.shape if zero_point.size > 1 else ())
        # What chopi refuses: scales that are not positive finite numbers.
        if not (np.isfinite(scale).all() and (scale > 0).all() and np.isfinite(zero).all()):
            return
        index = len(self.cases)
        case = dict(
            float={F16: "f16", BF16: "bf16", F32: "f32", F64: "f64"}[x.dtype],
            bits=bits, symmetric=symmetric, qmin=int(bounds[0]), qmax=int(bounds[1]),
            granularity=groups and groups[0], axis=groups and groups[1],
            size=groups[2] if groups and len(groups) > 2 else None,
        )
        case["shape"] = [int(n) for n in shape]
        self.cases.append(case)
        integers = (zero == np.rint(zero)).all() and not self.convention == "pychop-torch"
        tensors |= {"x": x, "scale": scale.reshape(shape)}
        tensors["zero_point"] = zero.reshape(shape).astype("i4" if integers else F64)
        if "codes" in tensors:
            codes = np.asarray(tensors["codes"]).astype("i8")
            fits = [t for t in ("i1", "u1", "i2", "u2", "i4", "u4", "i8")
                    if codes.min() >= np.iinfo(t).min and codes.max() <= np.iinfo(t).max]
            tensors["codes"] = codes.astype(fits[0])
        for name in ("codes", "dequantized", "fake_quantized"):
            assert name not in tensors or tensors[name].shape == x.shape, (name, tensors[name].shape)
        if "fake_quantized" in tensors and "dequantized" in tensors:
            if tensors["fake_quantized"].tobytes() == tensors["dequantized"].tobytes():
                del tensors["fake_quantized"]
        for name, tensor in tensors.items():
            self.tensors[f"{index}.{name}"] = np.ascontiguousarray(tensor)

    def write(self, folder):
        names = {F16: "F16", BF16: "BF16", F32: "F32", F64: "F64"}
        libraries = ", ".join(f"{name} {version(name)}" for name in self.libraries)
        cases = json.dumps(self.cases, separators=(",", ":"))
        header, end = {"__metadata__": {"cases": cases, "libraries": libraries}}, 0
        for name, t in self.tensors.items():
            dtype = names.get(t.dtype) or f"{t.dtype.kind.upper()}{8 * t.dtype.itemsize}"
            header[name] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [end, end + t.nbytes]}
            end += t.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        path = Path(folder) / f"{self.convention}.safetensors"
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for t in self.tensors.values():
                file.write(t.tobytes())
        values = sum(t.size for name, t in self.tensors.items() if name.endswith(".x"))
        print(f"{path.name}: {len(self.cases)} cases, {values} values, {path.stat().st_size} bytes")


# -------------------------------------------------------------------------------------- the inputs


def finfo(dt):
    return ml_dtypes.finfo(dt)


def specials(dt, infinities):
    """Zeros, the ends of the normal and subnormal numbers, and around the integer types' ends."""
    fi = finfo(dt)
    values = [0.0, float(fi.max), float(fi.smallest_normal), float(fi.smallest_subnormal), 0.5, 1.0,
              2147483520.0, 2147483648.0, 4e9, 1e30]
    values = [v for v in values if v <= float(fi.max)] + ([np.inf] if infinities else [])
    return np.array([sign * v for v in values for sign in (1, -1)]).astype(dt)


def ties(s, z, lo, hi, dt, rng):
    """Values at, and one and two ulp beside, the points where the code changes: (k + 1/2)·s, and k·s."""
    a, b = np.floor(lo - z - 3), np.ceil(hi - z + 3)
    if b - a <= 300:
        k = np.arange(a, b + 1)
    else:
        ends = np.arange(9.0)
        k = np.concatenate([a + ends, b - ends, ends - 4, np.floor(rng.uniform(a, b, 200))])
    t = np.concatenate([(k + 0.5) * s, k * s, (k + rng.random(k.size)) * s]).astype(dt)
    t = np.ascontiguousarray(t[np.isfinite(t.astype(F64))])
    bits = t.view({2: "i2", 4: "i4", 8: "i8"}[dt.itemsize])
    beside = np.concatenate([(bits + d).view(dt) for d in (0, 1, -1, 0, 2, -2)])
    # Among random values those for which x/s and x·(1/s) round differently are one in hundreds.
    w = F64 if dt == F64 else F32
    r = (rng.uniform(a, b, 2000) * s).astype(dt).astype(w)
    sw = np.asarray(s).astype(w)
    r = r[np.rint(r / sw) != np.rint(r * (w.type(1) / sw))].astype(dt)
    out = np.concatenate([beside, r])
    return out[np.isfinite(out.astype(F64))]


def hurt(s, z, lo, hi, dt, rng, n, infinities=False, limit=None):
    """n values for the scale and the zero point. limit: none with |x/s| at or over it but 0 instead."""
    pool = ties(float(s), float(z), lo, hi, dt, rng)
    special = specials(dt, infinities)
    k = min(len(special), n // 4)
    parts = [rng.permutation(special)[:k]]
    parts.append(pool[rng.integers(0, len(pool), n - k)] if len(pool) else np.zeros(n - k, dt))
    x = rng.permutation(np.concatenate(parts).astype(dt))
    if limit is not None:
        x = np.where(np.abs(x.astype(F64) / float(s)) < limit, x, np.zeros((), dt)).astype(dt)
    return x


SCALES = [1.0, 0.5, 2.0**-7, 0.1, 1 / 3, 0.00214854861, 2.0**-23, 7.77, 0.99999994, 1.0000001, 0.0235294122]
FAR_SCALES = [1e-30, 2.0**-100, 1e30, 2.0**100, 1e37]


def scales(dt, rng, n, far=True):
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
    ]
    return kinds[k % len(kinds)]().astype(dt)


KINDS = 14


def groupings(x, axis):
    """The rows of a matrix, or of its transpose: what shares parameters in a per-channel scheme."""
    return [x] if axis is None else [x[i] for i in range(len(x))] if axis == 0 else [x[:, i] for i in range(x.shape[1])]


def hurt_like(s, z, axis, bounds, dt, rng, n, **options):
    """Values for per-tensor (axis None) or per-channel parameters: a matrix with them along axis."""
    s, z = np.atleast_1d(s), np.atleast_1d(z) + np.zeros(np.size(s))
    rows = [hurt(a, b, *bounds, dt, rng, n // len(s), **options) for a, b in zip(s, z)]
    x = np.stack(rows)
    return x if axis != 1 else np.ascontiguousarray(x.T)


def along(p, axis):
    """Per-channel parameters so that they broadcast."""
    return np.asarray(p) if axis is None else np.asarray(p)[:, None] if axis == 0 else np.asarray(p)


def channel(axis):
    return None if axis is None else ("channel", axis)


# -------------------------------------------------------------------------------------- PyTorch


def to_torch(a):
    import torch

    a = np.ascontiguousarray(a)
    return torch.from_numpy(a.view("u2")).view(torch.bfloat16) if a.dtype == BF16 else torch.from_numpy(a)


def from_torch(t):
    import torch

    t = t.detach().contiguous()
    return t.view(torch.uint16).numpy().view(BF16) if t.dtype == torch.bfloat16 else t.numpy()


def observe(x, dtype, symmetric, axis, bounds=None):
    """The scale and the zero point that PyTorch's observers give."""
    import torch
    from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

    options = dict(dtype=dtype)
    if bounds is not None:
        options |= dict(quant_min=bounds[0], quant_max=bounds[1])
    if axis is None:
        scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
        observer = MinMaxObserver(qscheme=scheme, **options)
    else:
        scheme = torch.per_channel_symmetric if symmetric else torch.per_channel_affine
        observer = PerChannelMinMaxObserver(ch_axis=axis, qscheme=scheme, **options)
    observer(to_torch(x))
    s, z = observer.calculate_qparams()
    return s.numpy(), z.long().numpy()


def torch_quantize(x, s, z, axis, dtype):
    import torch

    if axis is None:
        q = torch.quantize_per_tensor(to_torch(x), float(s[0]), int(z[0]), dtype)
    else:
        q = torch.quantize_per_channel(to_torch(x), to_torch(s.astype(F64)), to_torch(z.astype("i8")), axis, dtype)
    return dict(codes=from_torch(q.int_repr()), dequantized=from_torch(q.dequantize()))


def make_torch(v, rng):
    """NaN is left out: its code is 255, 127 or 0, whichever kernel runs."""
    import torch

    k = 0
    for dtype, bounds in ((torch.quint8, (0, 255)), (torch.qint8, (-128, 127))):
        for symmetric in (False, True):
            for axis in (None, 0, 1):
                settings = dict(bits=8, symmetric=symmetric, bounds=bounds, groups=channel(axis))
                for _ in range(4):
                    d, k = data(F32, rng, k), k + 1
                    s, z = observe(d, dtype, symmetric, axis)
                    if not np.isfinite(s).all():
                        continue
                    x = hurt_like(s, z, axis, bounds, F32, rng, 120, infinities=True)
                    v.add(x, s, z, data=d, **torch_quantize(x, s, z, axis, dtype), **settings)
        for s in scales(F32, rng, 8):
            for z in zero_points(*bounds)[::1 + int(s > 1)]:
                s1, z1 = np.array([s]), np.array([z])
                settings = dict(bits=8, symmetric=False, bounds=bounds)
                x = hurt(s, z, *bounds, F32, rng, 110, infinities=True)
                v.add(x, s1, z1, **torch_quantize(x, s1, z1, None, dtype), **settings)
                if z == bounds[1]:
                    s2, z2 = np.array([s, s * F32.type(0.75)], F32), np.array([z, 3])
                    x = hurt_like(s2, z2, 1, bounds, F32, rng, 120, infinities=True)
                    v.add(x, s2, z2, groups=("channel", 1), **torch_quantize(x, s2, z2, 1, dtype), **settings)


def torch_fake(x, s, z, axis, bounds):
    import torch

    s, z = to_torch(s.astype(F32)), to_torch(z.astype("i4"))
    if axis is None:
        y = torch.fake_quantize_per_tensor_affine(to_torch(x), s, z, *bounds)
    else:
        y = torch.fake_quantize_per_channel_affine(to_torch(x), s, z, axis, *bounds)
    return dict(fake_quantized=from_torch(y))


def make_torch_fake(v, rng):
    """NaN is left out, which becomes qmin; and per channel |x/s| from 2^63 on, which do too."""
    import torch

    ranges = [(torch.quint8, None, 8, (0, 255)), (torch.qint8, None, 8, (-128, 127)), (torch.qint8, (-127, 127), 8, (-127, 127)),
              (torch.quint8, (0, 15), 4, (0, 15)), (torch.qint8, (-8, 7), 4, (-8, 7)), (torch.qint8, (-2, 1), 2, (-2, 1)),
              (torch.int16, None, 16, (-32768, 32767)), (torch.uint16, None, 16, (0, 65535)), (torch.quint8, (0, 127), 7, (0, 127))]
    k = 0
    for dtype, custom, bits, bounds in ranges:
        for symmetric in (False, True):
            for axis in (None, 0, 1):
                for dt in (F32, F16, BF16):
                    d, k = data(dt, rng, k), k + 1
                    s, z = observe(d, dtype, symmetric, axis, custom)
                    if not np.isfinite(s).all():
                        continue
                    limits = dict(infinities=True) if axis is None else dict(limit=2.0**62)
                    x = hurt_like(s, z, axis, bounds, dt, rng, 92, **limits)
                    v.add(x, s, z, data=d, **torch_fake(x, s, z, axis, bounds), bits=bits, symmetric=symmetric,
                          bounds=bounds, groups=channel(axis))
        for dt in (F32, F16, BF16):
            for s in scales(F32, rng, 3, far=dt == F32):
                z = rng.choice(zero_points(*bounds))
                s1, z1 = np.array([s], F32), np.array([z])
                x = hurt(s, z, *bounds, dt, rng, 75, infinities=True)
                v.add(x, s1, z1, **torch_fake(x, s1, z1, None, bounds), bits=bits, symmetric=False, bounds=bounds)


# ------------------------------------------------------------------------------------- ONNX Runtime

ONNX_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
               "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def onnx_run(node, inputs, constants, output_kind, cast=None):
    """Runs one node; constants are initializers (name, array, kind)."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    kind = lambda name: getattr(TensorProto, {"float32": "FLOAT", "float16": "FLOAT16"}.get(name, name.upper()))
    init = [numpy_helper.from_array(np.asarray(a).astype(helper.tensor_dtype_to_np_dtype(kind(k))), n) for n, a, k in constants]
    nodes, output, out = [node], node.output[0], output_kind
    if cast:
        nodes.append(helper.make_node("Cast", [output], ["cast"], to=kind(cast)))
        output, out = "cast", cast
    infos = [helper.make_tensor_value_info(n, kind(a.dtype.name), [None] * a.ndim) for n, a in inputs.items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info(output, kind(out), None)], initializer=init)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def onnx_quantize(x, s, z, kind, groups):
    from onnx import helper

    attributes = {}
    if groups is not None:
        attributes["axis"] = groups[1]
        if len(groups) > 2:
            attributes["block_size"] = groups[2]
    else:
        s, z = np.asarray(s).reshape(()), np.asarray(z).reshape(())
    wide = {"int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}.get(kind)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes)
    q = onnx_run(node, {"x": x, "s": s}, [("z", z, kind)], kind, wide)
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes)
    y = onnx_run(node, {"s": s}, [("q", q, kind), ("z", z, kind)], x.dtype.name)
    return dict(codes=q, dequantized=y)


def onnx_dynamic(x):
    import onnxruntime as ort
    from onnx import TensorProto as P, helper as h

    if not hasattr(onnx_dynamic, "session"):
        node = h.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
        outputs = [h.make_tensor_value_info(n, t, None) for n, t in (("y", P.UINT8), ("s", P.FLOAT), ("z", P.UINT8))]
        graph = h.make_graph([node], "g", [h.make_tensor_value_info("x", P.FLOAT, [None])], outputs)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
        onnx_dynamic.session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    _, s, z = onnx_dynamic.session.run(None, {"x": np.ravel(x)})
    return s, z


def onnx_parameters(x, kind, symmetric):
    import onnxruntime.quantization.quant_utils as tool
    from onnx import TensorProto

    if kind == "uint8" and not symmetric and x.dtype == F32:
        return onnx_dynamic(x)
    z, s = tool.compute_data_quant_params(np.ravel(x), getattr(TensorProto, kind.upper()), symmetric)
    return s, z


def make_onnx(v, rng):
    """NaN is left out, and |x/s| from 2^31 on: there ONNX Runtime's two kernels differ. So are 2-bit
    calibrations: ONNX Runtime's tool does not have them."""
    limit = 2.0**30
    k = 0
    for kind, full in ONNX_RANGES.items():
        bits = int(kind.strip("uint"))
        for dt in (F32, F16):
            for symmetric in (False, True):
                for groups in (None, ("channel", 0), ("channel", 1), ("group", 1, 5), ("group", 0, 3)):
                    if bits == 2 or (groups and len(groups) > 2 and symmetric):
                        continue
                    shape = (8, 12) if groups and len(groups) > 2 else (4, 10)
                    d, k = data(dt, rng, k, *shape), k + 1
                    if groups is not None and len(groups) > 2:
                        _, axis, size = groups
                        m = d if axis == 1 else d.T
                        blocks = [[onnx_parameters(row[i:i + size], kind, symmetric) for i in range(0, len(row), size)] for row in m]
                        s = np.array([[p[0] for p in row] for row in blocks]).astype(dt)
                        z = np.array([[int(p[1]) for p in row] for row in blocks])
                        x = np.concatenate([np.stack([hurt(s[r, b], z[r, b], *full, dt, rng, min(size, m.shape[1] - b * size), limit=limit)
                                                      for r in range(len(m))]) for b in range(s.shape[1])], axis=1)
                        s, z, x = (a if axis == 1 else np.ascontiguousarray(a.T) for a in (s, z, x))
                    else:
                        axis = groups and groups[1]
                        parameters = [onnx_parameters(g, kind, symmetric) for g in groupings(d, axis)]
                        s = np.array([p[0] for p in parameters]).astype(dt)
                        z = np.array([int(p[1]) for p in parameters])
                        if not np.isfinite(s.astype(F64)).all():
                            continue
                        x = hurt_like(s, z, axis, full, dt, rng, 80, limit=limit)
                    v.add(x, s, z, data=d, **onnx_quantize(x, s, z, kind, groups), bits=bits, symmetric=symmetric,
                          bounds=full, groups=groups)
            for s in scales(dt, rng, 3):
                z = rng.choice(zero_points(*full))
                x = hurt(s, z, *full, dt, rng, 80, limit=limit)
                v.add(x, [s], [z], **onnx_quantize(x, s, z, kind, None), bits=bits, symmetric=False, bounds=full)


# ------------------------------------------------------------------------------- compressed-tensors


def make_compressed_tensors(v, rng):
    """NaN is left out, which becomes code 0; and the sign of zeros that its fake-quantization, which
    keeps the codes floats, leaves where negative values have the code 0."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize, fake_quantize, quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    def run(x, s, z, args):
        t, ts, tz = to_torch(x), to_torch(s), to_torch(z.astype("i1"))
        q = quantize(t, ts, tz, args, dtype=torch.int8)
        y = dequantize(q, ts, tz, args)
        return dict(codes=from_torch(q), dequantized=from_torch(y), fake_quantized=from_torch(fake_quantize(t, ts, tz, args) + 0.0))

    k = 0
    for bits in (8, 4, 2, 3, 5, 6, 7):
        bounds = (-2 ** (bits - 1), 2 ** (bits - 1) - 1)
        for dt in (F32, F16, BF16, F64):
            for symmetric in (False, True):
                for strategy in ("tensor", "channel", "group"):
                    for _ in range(1 + (bits == 8)):
                        d, k = data(dt, rng, k, 4, 16), k + 1
                        args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy=strategy,
                                                group_size=4 if strategy == "group" else None)
                        blocks = {"tensor": d.reshape(1, -1), "channel": d, "group": d.reshape(4, 4, 4)}[strategy]
                        lows, highs = blocks.astype(F64).min(-1).astype(dt), blocks.astype(F64).max(-1).astype(dt)
                        if strategy == "channel":
                            lows, highs = lows[:, None], highs[:, None]
                        s, z = calculate_qparams(to_torch(lows), to_torch(highs), args)
                        s, z = from_torch(s), from_torch(z).astype("i8")
                        if not np.isfinite(s.astype(F64)).all():
                            continue
                        groups = {"tensor": None, "channel": ("channel", 0), "group": ("group", 1, 4)}[strategy]
                        if strategy == "group":
                            x = np.stack([np.concatenate([hurt(s[r, g], z[r, g], *bounds, dt, rng, 4, infinities=True) for g in range(4)])
                                          for r in range(4)])
                        else:
                            x = hurt_like(s.ravel(), z.ravel(), None if strategy == "tensor" else 0, bounds, dt, rng, 64, infinities=True)
                        v.add(x, s if strategy == "group" else s.ravel(), z if strategy == "group" else z.ravel(), data=d,
                              **run(x, s, z, args), bits=bits, symmetric=symmetric, bounds=bounds, groups=groups)
            args = QuantizationArgs(num_bits=bits, symmetric=False, strategy="tensor")
            for s in scales(dt, rng, 1):
                z = rng.choice(zero_points(*bounds))
                x = hurt(s, z, *bounds, dt, rng, 64, infinities=True)
                v.add(x, [s], [z], **run(x, np.array([s], dt), np.array([z]), args), bits=bits, symmetric=False, bounds=bounds)


# ------------------------------------------------------------------------------------------- pychop


def pychop_bounds(bits, symmetric):
    return (-2 ** (bits - 1) if symmetric else 0, 2 ** (bits - 1) - 1)


def pychop_cases(v, rng, module, floats, to, back, floats_bits):
    """The NumPy and the JAX backend, which calibrate once and keep their parameters."""
    k = 0
    for dt in floats:
        for bits in floats_bits[dt]:
            for symmetric in (False, True):
                for axis in (None, 0, 1):
                    for _ in range(1 + 2 * (bits == 8)):
                        d, k = data(dt, rng, k), k + 1
                        quantizer = module.Chopi_(bits=bits, symmetric=symmetric, per_channel=axis is not None, axis=axis or 0)
                        quantizer.calibrate(to(d))
                        s = back(quantizer.scale).ravel()
                        z = np.zeros(1) if symmetric else np.asarray(quantizer.zero_point).ravel().astype("i8")
                        # Zero points beyond 32 bits, which pychop's cast mangles, chopi refuses.
                        if not np.isfinite(s.astype(F64)).all() or (np.abs(z) >= 2**31 - 1).any() and v.convention == "pychop":
                            continue
                        bounds = pychop_bounds(bits, symmetric)
                        x = hurt_like(s, z, axis, bounds, dt, rng, 100)
                        if (np.abs(z) > 2**31 - 2**16).any():
                            continue  # q - z wraps in 8-bit and 16-bit codes' arithmetic
                        if v.convention == "pychop-jax" and dt == F16 and (s < 2.0**-16).any():
                            continue  # 1/s overflows
                        q = quantizer.quantize(to(x))
                        # For most codes NumPy promotes to f64; what is kept is that product, rounded.
                        y = np.asarray(back(quantizer.dequantize(q)))
                        y = (y.astype(F32) if y.dtype == F64 and dt != F64 else y).astype(dt)
                        v.add(x, s, z, data=d, codes=np.asarray(q), dequantized=y, bits=bits, symmetric=symmetric,
                              bounds=bounds, groups=channel(axis))


def make_pychop(v, rng):
    """NaN and infinities are left out: pychop has no code for the one, and clips the others."""
    import pychop.np.integer as module

    pychop_cases(v, rng, module, (F32, F64, F16), np.asarray, np.asarray,
                 {F32: (8, 4, 2, 5, 12, 16), F64: (8, 3, 16), F16: (8, 4, 2, 11)})


def make_pychop_jax(v, rng):
    import jax.numpy as jnp
    import pychop.jx.integer as module

    pychop_cases(v, rng, module, (F32, F16, BF16), jnp.asarray, np.asarray,
                 {F32: (8, 4, 16), F16: (8, 4, 11), BF16: (8, 4, 2)})


def make_pychop_torch(v, rng):
    """This backend calibrates on every quantize: so the values lie in the calibrated range."""
    import pychop.tch.integer as module

    k = 0
    bits_of = {F32: (8, 8, 8, 4, 2, 12, 16), F64: (8, 8, 3, 16), F16: (8, 8, 4, 11), BF16: (8, 8, 4, 2)}
    for dt, widths in bits_of.items():
        for bits in widths:
            for symmetric in (False, True):
                for axis in (None, 0, 1):
                    bounds = pychop_bounds(bits, symmetric)
                    rows = []
                    for _ in range(1 if axis is None else 4):
                        ends, k = np.ravel(data(dt, rng, k)), k + 1
                        low, high = ends.astype(F64).min(), ends.astype(F64).max()
                        if not np.isfinite(np.asarray(high - low).astype(dt).astype(F64)):
                            low, high = low / 8, high / 8
                        s = max(high - low, 1e-5) / (bounds[1] - bounds[0])
                        t = ties(s, 0 if symmetric else bounds[0] - low / s, *bounds, dt, rng)
                        t = t[(t.astype(F64) >= low) & (t.astype(F64) <= high)]
                        row = np.resize(rng.permutation(np.concatenate([t, ends])), 90 if axis is None else 24)
                        row[:2] = np.array([low, high]).astype(dt)
                        rows.append(rng.permutation(row))
                    x = rows[0] if axis is None else np.stack(rows) if axis == 0 else np.ascontiguousarray(np.stack(rows).T)
                    quantizer = module.Chopi_(bits=bits, symmetric=symmetric, per_channel=axis is not None, axis=axis or 0)
                    q = quantizer.quantize(to_torch(x))
                    s = from_torch(quantizer.scale).ravel()
                    z = np.zeros(1) if symmetric else from_torch(quantizer.zero_point).ravel()
                    v.add(x, s, z, data=x, codes=from_torch(q), dequantized=from_torch(quantizer.dequantize(q)), bits=bits,
                          symmetric=symmetric, bounds=bounds, groups=channel(axis))


# ------------------------------------------------------------------------------------------- TFLite

TFLITE_TYPES = {"float32": 0, "int16": 7, "int8": 9}


def tflite_tensor(name, shape, kind, buffer=0, scale=None, zero_point=None, axis=0):
    from ai_edge_litert import schema_py_generated as schema

    t = schema.TensorT()
    t.name, t.shape, t.type, t.buffer = name, list(shape), TFLITE_TYPES[kind], buffer
    if scale is not None:
        p = schema.QuantizationParametersT()
        p.scale, p.zeroPoint = np.atleast_1d(np.asarray(scale, F32)), np.atleast_1d(np.asarray(zero_point, "i8"))
        p.quantizedDimension = axis
        t.quantization = p
    return t


def tflite_model(tensors, operator, version, inputs, outputs, options=None, buffers=()):
    """A model of one operator."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    code, op, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, min(operator, 127), version
    op.opcodeIndex, op.inputs, op.outputs = 0, inputs, outputs
    if options:
        op.builtinOptionsType, op.builtinOptions = options
    graph.tensors, graph.operators, graph.name = tensors, [op], "main"
    graph.inputs, graph.outputs = inputs[:1], outputs
    model.version, model.description, model.operatorCodes, model.subgraphs, model.buffers = 3, "", [code], [graph], []
    for data in (b"", *buffers):
        b = schema.BufferT()
        b.data = np.frombuffer(data, "u1") if data else None
        model.buffers.append(b)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tflite_run(operator, version, x, out_kind, parameters_of_input, s, z, axis):
    """The reference kernel of QUANTIZE or DEQUANTIZE."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    p = (s, z, axis)
    none = (None, None, 0)
    tensors = [tflite_tensor("x", x.shape, x.dtype.name, 0, *(p if parameters_of_input else none)),
               tflite_tensor("y", x.shape, out_kind, 0, *(none if parameters_of_input else p))]
    model = tflite_model(tensors, operator, version, [0], [1])
    it = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1)
    it.allocate_tensors()
    it.set_tensor(it.get_input_details()[0]["index"], x)
    it.invoke()
    return it.get_tensor(it.get_output_details()[0]["index"])


def tflite_quantize(x, s, z, kind, axis):
    from ai_edge_litert import schema_py_generated as schema

    z = np.zeros(np.size(s)) + z
    q = tflite_run(schema.BuiltinOperator.QUANTIZE, 2, x, kind, False, s, z, axis or 0)
    tensors = dict(codes=q)
    # The DEQUANTIZE kernel has no 16-bit codes per channel.
    if kind == "int8" or axis is None:
        tensors["dequantized"] = tflite_run(schema.BuiltinOperator.DEQUANTIZE, 3, q, "float32", True, s, z, axis or 0)
    return tensors


def tflite_convert(x, weights, activations, per_tensor):
    """The parameters that the converter gives the activations x and the weights of a fully connected layer."""
    from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as wrapper
    from ai_edge_litert import schema_py_generated as schema

    rows, columns = weights.shape
    tensors = [tflite_tensor("x", (1, columns), "float32"), tflite_tensor("w", weights.shape, "float32", 1),
               tflite_tensor("y", (1, rows), "float32")]
    options = (schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT())
    model = tflite_model(tensors, schema.BuiltinOperator.FULLY_CONNECTED, 1, [0, 1, -1], [2], options, [weights.tobytes()])
    calibration = wrapper.CalibrationWrapper(model, [], [])
    calibration.Prepare()
    calibration.FeedTensor([x])
    number = lambda kind: np.dtype(kind).num
    bias = "int32" if activations == "int8" else "int64"
    converted = calibration.QuantizeModel(number("float32"), number("float32"), False, number(activations), number(bias),
                                          per_tensor, per_tensor)
    named = {t.name.decode(): t for t in schema.ModelT.InitFromPackedBuf(converted, 0).subgraphs[0].tensors}
    p = (named.get(f"x_{activations}") or named.get("x_int8") or named["x"]).quantization
    return (np.array(p.scale, F32), np.array(p.zeroPoint)), np.array(named["w"].quantization.scale, F32)


def make_tflite(v, rng):
    """The parameters are the converter's, the codes the reference QUANTIZE kernel's. Left out: NaN and
    |x/s| from 2^31 on, which wrap; the scale 0 of all-zero channels; subnormal
    activations, some of which the calibrator flushes; and codes below -127 in symmetric
    schemes, whose range the kernel does not know."""
    limit = 2.0**30

    def add(x, s, z, bits, symmetric, axis, d=None):
        half = 2 ** (bits - 1)
        bounds = (1 - half if symmetric else -half, half - 1)
        if symmetric:
            x = np.where(x.astype(F64) / along(s, axis).astype(F64) < bounds[0], np.zeros((), F32), x)
        tensors = tflite_quantize(x, s, z, f"int{bits}", axis) | ({} if d is None else {"data": d})
        v.add(x, s, z, bits=bits, symmetric=symmetric, bounds=bounds, groups=channel(axis), **tensors)

    for k in range(2 * KINDS):
        activations = np.reshape(data(F32, rng, k), (1, 40))
        wide = data(F32, rng, k, 4, 40)
        # Products of the one with an ordinary other do not overflow.
        (s, z), _ = tflite_convert(activations, data(F32, rng, 0, 4, 40), "int8", False)
        (s16, z16), _ = tflite_convert(activations, data(F32, rng, 0, 4, 40), "int16", True)
        _, per_channel = tflite_convert(data(F32, rng, 0, 1, 40), wide, "int8", False)
        _, per_tensor = tflite_convert(data(F32, rng, 0, 1, 40), wide, "int8", True)
        if not 0 < np.abs(activations).max() < finfo(F32).smallest_normal:
            add(hurt_like(s, z, None, (-128, 127), F32, rng, 110, limit=limit), s, z, 8, False, None, activations)
            add(hurt_like(s16, z16, None, (-32767, 32767), F32, rng, 72, limit=limit), s16, z16, 16, True, None, activations)
        if np.size(per_tensor) == 1:
            add(hurt_like(per_tensor, 0, None, (-127, 127), F32, rng, 72, limit=limit), per_tensor, np.zeros(1), 8, True, None, wide)
        if (per_channel > 0).all():
            add(hurt_like(per_channel, 0, 0, (-127, 127), F32, rng, 120, limit=limit), per_channel, np.zeros(4), 8, True, 0, wide)
    for s in scales(F32, rng, 8):
        for z in zero_points(-128, 127):
            add(hurt(s, z, -128, 127, F32, rng, 72, limit=limit), np.array([s]), np.array([z]), 8, False, None)
        add(hurt(s, 0, -32768, 32767, F32, rng, 72, limit=limit), np.array([s]), np.array([0]), 16, True, None)


# ---------------------------------------------------------------------------------------------- AQT


def make_aqt(v, rng):
    """Jitted. Left out: data whose scale is subnormal, or so small that subnormal values have codes, or
    so large that its reciprocal is subnormal: XLA flushes those to zero."""
    import jax
    import jax.numpy as jnp
    from aqt.jax.v2 import aqt_quantizer, aqt_tensor

    def quantize(quantizer, axes):
        def run(x):
            q = quantizer.quant(x, calibration_axes=axes)[0]
            return q.qvalue, q.scale[0], q.dequant()

        return jax.jit(run)

    k = 0
    for bits in (8, 4, 2, 3, 5, 6, 7):
        edge = 2 ** (bits - 1) - 1
        quantizer = aqt_quantizer.quantizer_make(bits)
        for axes, axis in (((0, 1), None), ((1,), 0), ((0,), 1)):
            run = quantize(quantizer, axes)
            for dt in (F32, F16, BF16):
                for _ in range(2 + 2 * (bits == 8)):
                    # Each group's largest absolute value, and values in between at ties.
                    d, k = data(dt, rng, k), k + 1
                    rows = []
                    for g in d:
                        a = np.abs(g.astype(F64)).max()
                        s = (a if a > 0 else 1) / (edge + 0.5)
                        t = ties(s, 0, -edge, edge, dt, rng)
                        t = t[np.abs(t.astype(F64)) <= a]
                        row = np.resize(rng.permutation(np.concatenate([t, g])), 22)
                        row[0] = g[np.argmax(np.abs(g.astype(F64)))]
                        rows.append(rng.permutation(row))
                    x = np.stack(rows)
                    x = np.ascontiguousarray(x.T) if axis == 1 else x
                    q, s, y = (np.asarray(a) for a in run(jnp.asarray(x)))
                    if dt != F16 and (s.astype(F64) < 1e-30).any() or (s.astype(F64) > 1e37).any():
                        continue
                    v.add(x, s.ravel(), np.zeros(1), data=x, codes=q, dequantized=y, bits=bits, symmetric=True,
                          bounds=(-edge, edge), groups=channel(axis))
        for s in scales(F32, rng, 5):
            if not 1e-30 <= s <= 1e36:
                continue
            x = hurt(s, 0, -edge - 3, edge + 3, F32, rng, 90, infinities=True)
            q = aqt_tensor.QTensor(qvalue=None, scale=[jnp.full((1,), s, jnp.float32)], scale_t=None, bias=[], dequant_dtype=jnp.float32)
            q = quantizer.calculate_qvalue(jnp.asarray(x), q)[0]
            v.add(x, [s], [0], codes=np.asarray(q.qvalue), dequantized=np.asarray(q.dequant()), bits=bits, symmetric=True,
                  bounds=(-edge, edge))


# --------------------------------------------------------------------------------------------------

CONVENTIONS = {
    "pychop": (make_pychop, ["pychop", "numpy"]),
    "pychop-torch": (make_pychop_torch, ["pychop", "torch"]),
    "pychop-jax": (make_pychop_jax, ["pychop", "jax", "jaxlib"]),
    "torch": (make_torch, ["torch"]),
    "torch-fake": (make_torch_fake, ["torch"]),
    "onnx": (make_onnx, ["onnxruntime", "onnx"]),
    "compressed-tensors": (make_compressed_tensors, ["compressed-tensors", "torch"]),
    "tflite": (make_tflite, ["ai-edge-litert"]),
    "aqt": (make_aqt, ["aqtp", "jax", "jaxlib"]),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("conventions", nargs="*", default=list(CONVENTIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=Path(__file__).parent)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for convention in arguments.conventions:
        make, libraries = CONVENTIONS[convention]
        vectors = Vectors(convention, libraries)
        make(vectors, np.random.default_rng(arguments.seed))
        vectors.write(arguments.out)


if __name__ == "__main__":
    main()
