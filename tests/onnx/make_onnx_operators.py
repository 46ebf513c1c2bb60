"""Writes onnx-operators.safetensors beside this file: inputs of QuantizeLinear, DequantizeLinear and
DynamicQuantizeLinear, and what ONNX's reference evaluator and ONNX Runtime make of them.

    python make_onnx_operators.py [--seed N] [--cases N] [--values N] [--out FOLDER]

Needs onnx and onnxruntime of ../conformance/requirements.txt. To compare chopi with them on other numbers, and more:

    python make_onnx_operators.py --seed 1 --cases 5000 --values 1000 --out /tmp/vectors
    CHOPI_VECTORS=/tmp/vectors cargo test --test onnx_operators -- --nocapture

The metadata entry "cases" is a JSON list of the cases' settings. The file has one tensor for each
element type, with the numbers of all cases one after the other; a case takes, each from the tensor of
its type: x, scale, zero_point (unless "no_zero_point"), and the output of each of its "peers" (of
DynamicQuantizeLinear x, and of each peer y, y_scale and y_zero_point). Peers that give the same bits
are one entry, "reference=onnxruntime". A peer that does not implement a case is not in it.
"""

import argparse
import itertools
import json
from importlib.metadata import version
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

F16, F32, F64 = (np.dtype(t) for t in ("f2", "f4", "f8"))
BF16 = np.dtype(ml_dtypes.bfloat16)
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
          "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}
FLOATS = {"f32": F32, "f16": F16, "bf16": BF16}
PROTO = {"f32": "FLOAT", "f16": "FLOAT16", "bf16": "BFLOAT16"}
WIDE = {"int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}
PEERS = ("reference", "onnxruntime")
np.seterr(all="ignore")


def proto(kind):
    return getattr(TensorProto, PROTO.get(kind, kind.upper()))


def run(peer, operator, inputs, outputs, attributes):
    """The outputs of one node; None where the peer does not implement it. inputs: (array, kind) or
    None each; outputs: kinds. Numbers of 2 and 4 bits and bfloat16 come as wider ones."""
    names = [f"i{i}" if one is not None else "" for i, one in enumerate(inputs)]
    constants = [numpy_helper.from_array(np.asarray(a).astype(helper.tensor_dtype_to_np_dtype(proto(kind))), name)
                 for name, (a, kind) in zip(filter(None, names), filter(None, inputs))]
    nodes = [helper.make_node(operator, names, [f"o{i}" for i in range(len(outputs))], **attributes)]
    results = []
    for i, kind in enumerate(outputs):
        name, wide = f"o{i}", {**WIDE, "bf16": "f32"}.get(kind)
        if wide:
            nodes.append(helper.make_node("Cast", [name], [f"wide{i}"], to=proto(wide)))
            name, kind = f"wide{i}", wide
        results.append(helper.make_tensor_value_info(name, proto(kind), None))
    graph = helper.make_graph(nodes, "g", [], results, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    if peer == "reference":
        return ReferenceEvaluator(model).run(None, {})
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    # Constants are not folded: the node itself runs.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    return session.run(None, {})


class Operators:
    """The cases of the three operators."""

    def __init__(self):
        self.cases, self.pools, self.values = [], {}, 0

    def put(self, array, kind):
        dtype = FLOATS.get(kind) or np.dtype(WIDE.get(kind, kind))
        self.pools.setdefault(dtype, []).append(np.ascontiguousarray(np.asarray(array).astype(dtype)).reshape(-1))

    def add(self, case, operator, inputs, outputs, attributes, peers=PEERS):
        results = {peer: run(peer, operator, inputs, outputs, attributes) for peer in peers}
        results = {peer: result for peer, result in results.items() if result is not None}
        same = len(results) == 2 and all(
            a.tobytes() == b.tobytes() for a, b in zip(results["reference"], results["onnxruntime"]))
        if same:
            results = {"reference=onnxruntime": results["reference"]}
        self.values += np.size(inputs[0][0])
        for array, kind in filter(None, inputs):
            self.put(array, kind)
        for result in results.values():
            for array, kind in zip(result, outputs):
                self.put(array, kind)
        self.cases.append({"operator": operator, **case, "peers": list(results)})

    def write(self, folder, name):
        names = {F16: "f16", BF16: "bf16", F32: "f32"}
        tensors = {names.get(dtype, dtype.name): np.concatenate(arrays) for dtype, arrays in self.pools.items()}
        libraries = ", ".join(f"{name} {version(name)}" for name in ("onnx", "onnxruntime"))
        cases = json.dumps(self.cases, separators=(",", ":"))
        header, end = {"__metadata__": {"cases": cases, "libraries": libraries}}, 0
        for kind, t in tensors.items():
            dtype = {"f": "F", "b": "BF", "i": "I", "u": "U"}[kind[0]] + str(8 * t.dtype.itemsize)
            header[kind] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [end, end + t.nbytes]}
            end += t.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        path = Path(folder) / name
        path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *(t.tobytes() for t in tensors.values())]))
        print(f"{path.name}: {len(self.cases)} cases, {self.values} values, {path.stat().st_size} bytes")


# -------------------------------------------------------------------------------------- the inputs


def some_shape(rng, values):
    """A shape of up to four axes and so many elements at most; at times an empty one."""
    shape = np.ones(rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4]), int)
    for _ in range(20 if shape.size else 0):
        longer = shape.copy()
        longer[rng.integers(shape.size)] += rng.integers(1, 4) if rng.random() < 0.7 else rng.integers(1, values)
        if longer.prod() <= values:
            shape = longer
    if shape.size and rng.random() < 0.02:
        shape[rng.integers(shape.size)] = 0
    return tuple(int(n) for n in shape)


def granularity(rng, shape):
    """(attributes, shape of the scale)"""
    kind = rng.choice(["tensor", "axis", "blocks", "blocks"]) if shape else "tensor"
    if kind == "tensor":
        attributes = {"axis": int(rng.integers(-9, 9))} if rng.random() < 0.2 else {}
        return attributes, () if rng.random() < 0.7 else (1,)
    axis = int(rng.integers(len(shape)))
    named = axis if rng.random() < 0.5 else axis - len(shape)
    if kind == "axis":
        return {"axis": named}, (shape[axis],)
    size = int(rng.integers(1, max(2, shape[axis] + 2)))
    scale = tuple(-(-n // size) if i == axis else n for i, n in enumerate(shape))
    return {"axis": named, "block_size": size}, scale


def spread(parameters, attributes, shape):
    """One parameter for each element."""
    if parameters.ndim == 0 or parameters.shape == (1,) and "block_size" not in attributes:
        return np.broadcast_to(parameters.reshape(()), shape)
    axis = attributes["axis"] % len(shape)
    if "block_size" in attributes:
        return np.repeat(parameters, attributes["block_size"], axis).take(range(shape[axis]), axis)
    return np.broadcast_to(parameters.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


def some_scales(rng, dt, shape):
    """Powers of two and others, near and far; few of them, so that each meets many values; at times
    negative, zero or infinite ones."""
    near = [1.0, 0.5, 2.0**-7, 0.1, 1 / 3, 0.00214854861, 7.77, 0.99999994, 1.0000001, *np.exp2(rng.uniform(-13, 8, 8))]
    far = [1e-39, 1e-30, 2.0**-100, 1e30, 1e37, 3e38] if dt != F16 else [6e-8, 3e-5, 2.0**15]
    pool = np.array(near + far).astype(dt).astype(F64)
    s = np.broadcast_to(rng.choice(pool, shape if rng.random() < 0.3 else [1] * len(shape)), shape)
    if rng.random() < 0.1:
        s = s * rng.choice([-1, 1], shape)
    if rng.random() < 0.04:
        s = s * rng.choice([0, 1, np.inf], shape, p=[0.2, 0.6, 0.2])
    return s.astype(dt)


def some_zero_points(rng, bounds, shape):
    """Both ends, even and odd ones."""
    lo, hi = bounds
    return rng.choice([z for z in (lo, hi, 0, 3, lo + 1, hi - 1) if lo <= z <= hi], shape)


def some_values(rng, s, z, bounds, dt):
    """One value for each scale and zero point, most of them at, and one and two steps of the type
    beside, the points where the code changes, and at codes; of all codes and many from their ends
    and around zero. The others are anywhere, or special."""
    s, shape = s.astype(F64), s.shape
    low, high = bounds[0] - 3, bounds[1] + 3
    code = rng.integers(low, high, shape, endpoint=True).astype(F64)
    where, near = rng.integers(0, 8, shape), rng.integers(0, 9, shape)
    for place, first in ((0, low), (1, high - 8), (2, z - 4)):
        code = np.where(where == place, first + near, code)
    half = np.where(rng.random(shape) < 0.2, rng.random(shape), rng.choice([0.5, 0.5, 0.5, 0.0], shape))
    x = np.ascontiguousarray(((code + half - z) * s).astype(dt))
    integer = np.int16 if dt.itemsize == 2 else np.int32
    beside = (x.view(integer) + rng.choice(np.array([0, 0, 1, -1, 2, -2], integer), shape).astype(integer)).view(dt)
    x = np.where(np.isfinite(beside), beside, x)
    fi = ml_dtypes.finfo(dt)
    special = [0.0, np.inf, float(fi.max), float(fi.smallest_normal), float(fi.smallest_subnormal), 0.5, 1.0,
               2147483520.0, 2147483648.0, 4e9, 1e30]
    special = (rng.choice(special, shape) * rng.choice([-1, 1], shape)).astype(dt)
    x = np.where(rng.random(shape) < 0.08, special, x)
    return np.where(np.isnan(x), np.zeros((), dt), x).astype(dt)


def some_data(rng, shape):
    """Data to take a range from."""
    x, size = rng.standard_normal(shape), np.exp2(rng.uniform(-30, 30) if rng.random() < 0.7 else rng.uniform(-140, 120))
    kinds = [x, x, np.abs(x), -np.abs(x), x + 5, x - 300, np.round(x * 4), 0 * x, 0 * x - 2.7, 0 * x + 1]
    return (kinds[rng.integers(len(kinds))] * size).astype(F32)


# ------------------------------------------------------------------------------------- the operators


def quantize_case(v, rng, values, kind, x_type):
    bounds = RANGES[kind]
    s_type = x_type if rng.random() < 0.85 else rng.choice(list(FLOATS))
    shape = some_shape(rng, values)
    attributes, scale_shape = granularity(rng, shape)
    s = some_scales(rng, FLOATS[s_type], scale_shape)
    z = some_zero_points(rng, bounds, scale_shape) if rng.random() < 0.85 else np.zeros(scale_shape, int)
    case = dict(x=x_type, shape=shape, scale=s_type, scale_shape=scale_shape, codes=kind, **attributes)
    without = not z.any() and rng.random() < 0.8
    if without:
        case["no_zero_point"] = True
    if without and kind != "uint8" or rng.random() < 0.1:
        attributes["output_dtype"] = proto(kind)
    if rng.random() < 0.3:
        case["precision"] = str(rng.choice(list(FLOATS)))
        attributes["precision"] = proto(case["precision"])
    x = some_values(rng, spread(s, attributes, shape), spread(z, attributes, shape), bounds, FLOATS[x_type])
    inputs = [(x, x_type), (s, s_type), None if without else (z, kind)]
    # ONNX Runtime reads beyond its buffers for two types, and divides by zero for no blocks.
    peers = PEERS if x_type == s_type and (0 not in shape or "block_size" not in attributes) else PEERS[:1]
    if "block_size" in attributes and scale_shape == (1,):
        peers = PEERS[:1]
    v.add(case, "QuantizeLinear", inputs, [kind], attributes, peers)


def dequantize_case(v, rng, values, kind, y_type):
    lo, hi = RANGES.get(kind, (-(2**31), 2**31 - 1))
    s_type = y_type if rng.random() < 0.6 else rng.choice(list(FLOATS))
    shape = some_shape(rng, values)
    attributes, scale_shape = granularity(rng, shape)
    s = some_scales(rng, FLOATS[s_type], scale_shape)
    z = some_zero_points(rng, (lo, hi), scale_shape) if kind != "int32" else np.zeros(scale_shape, int)
    without = rng.random() < 0.2
    # With zero points of int32 the reference evaluator computes in float64.
    if kind == "int32" and (y_type != "f32" or rng.random() < 0.6):
        without = True
    q = rng.integers(lo, hi, shape, endpoint=True)
    if kind == "int32":
        q >>= rng.integers(0, 31, shape)
    q = np.where(rng.random(shape) < 0.1, rng.choice([lo, hi, 0], shape), q)
    case = dict(x=kind, shape=shape, scale=s_type, scale_shape=scale_shape, y=y_type, **attributes)
    if without:
        case["no_zero_point"] = True
    if y_type != s_type or rng.random() < 0.2:
        attributes["output_dtype"] = proto(y_type)
    inputs = [(q, kind), (s, s_type), None if without else (z, kind)]
    peers = PEERS if 0 not in shape or "block_size" not in attributes else PEERS[:1]
    if "block_size" in attributes and scale_shape == (1,):
        peers = PEERS[:1]
    v.add(case, "DequantizeLinear", inputs, [y_type], attributes, peers)


def dynamic_case(v, rng, values):
    shape = some_shape(rng, values)
    count = int(np.prod(shape))
    if count == 0:
        peers = PEERS[1:]
        x = np.zeros(shape, F32)
    else:
        peers = PEERS
        x = some_data(rng, shape)
        if rng.random() < 0.3:
            # Ties and one step beside them, for the scale that comes out.
            mn, mx = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
            s = (mx - mn) / F32.type(255)
            k = np.floor(rng.uniform(float(mn / s) if s else 0, float(mx / s) if s else 0, shape)) + 0.5
            t = np.nextafter((k * s).astype(F32), rng.choice([-np.inf, np.inf], shape).astype(F32))
            t = np.where(rng.random(shape) < 0.5, (k * s).astype(F32), t)
            x = np.where((rng.random(shape) < 0.8) & (t >= mn) & (t <= mx), t, x).astype(F32)
    mn, mx = (np.minimum(x.min(), F32.type(0)), np.maximum(x.max(), F32.type(0))) if count else (F32.type(0),) * 2
    s = (mx - mn) / F32.type(255)
    if mn != mx and not (0 < s < np.inf):
        return  # refused
    v.add(dict(shape=shape), "DynamicQuantizeLinear", [(x, "f32")], ["uint8", "f32", "uint8"], {}, peers)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=340, help="how many, of all operators")
    parser.add_argument("--values", type=int, default=50, help="the most elements of a case")
    parser.add_argument("--out", default=Path(__file__).parent)
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([arguments.seed, 25])
    vectors = Operators()
    types = ["f32", "f16", "bf16", "f32", "f16"]
    quantize = itertools.cycle((kind, x) for x in types for kind in RANGES)
    dequantize = itertools.cycle((kind, y) for y in types for kind in [*RANGES, "int32"])
    for i in range(arguments.cases):
        if i % 10 < 6:
            quantize_case(vectors, rng, arguments.values, *next(quantize))
        elif i % 10 < 9:
            dequantize_case(vectors, rng, arguments.values, *next(dequantize))
        else:
            dynamic_case(vectors, rng, arguments.values)
    vectors.write(arguments.out, "onnx-operators.safetensors")


if __name__ == "__main__":
    main()
