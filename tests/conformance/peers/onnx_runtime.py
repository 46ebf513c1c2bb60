"""ONNX Runtime: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and the quantization tool."""

import functools

import numpy as np
import onnxruntime as ort
import onnxruntime.quantization.quant_utils as tool
from onnx import TensorProto, helper, numpy_helper

from inputs import F16, F32, F64, Kinds, along, groupings, hurt, scales, zero_points

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
          "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16} | {
    kind: getattr(TensorProto, kind.upper()) for kind in RANGES
}


def session(graph, opset):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def quantize(x, s, z, kind, groups):
    """QuantizeLinear, and DequantizeLinear of its codes. Codes of fewer than 8 bits are cast to be read."""
    attributes = {}
    if groups is not None:
        attributes["axis"] = groups[1]
        if len(groups) > 2:
            attributes["block_size"] = groups[2]
    else:
        s, z = np.asarray(s).reshape(()), np.asarray(z).reshape(())
    wide = kind if kind.strip("uint") in ("8", "16") else "uint8" if kind.startswith("u") else "int8"
    zero = numpy_helper.from_array(z.astype(helper.tensor_dtype_to_np_dtype(TYPES[kind])), "z")
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
             helper.make_node("Identity" if wide == kind else "Cast", ["q"], ["codes"],
                              **({} if wide == kind else {"to": TYPES[wide]}))]
    info = helper.make_tensor_value_info
    inputs = [info("x", TYPES[x.dtype.name], [None] * x.ndim), info("s", TYPES[s.dtype.name], [None] * s.ndim)]
    outputs = [info("codes", TYPES[wide], None), info("y", TYPES[x.dtype.name], None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=[zero])
    q, y = session(graph, 25).run(None, {"x": x, "s": s})
    return dict(codes=q, dequantized=y)


@functools.cache
def dynamic_session():
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    outputs = [helper.make_tensor_value_info(n, t, None)
               for n, t in (("y", TYPES["uint8"]), ("s", TensorProto.FLOAT), ("z", TYPES["uint8"]))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])]
    return session(helper.make_graph([node], "g", inputs, outputs), 21)


def parameters(x, kind, symmetric):
    if kind == "uint8" and not symmetric and x.dtype == F32:
        _, s, z = dynamic_session().run(None, {"x": np.ravel(x)})
    else:
        z, s = tool.compute_data_quant_params(np.ravel(x), TYPES[kind], symmetric)
    return float(s), int(z)


def of_each(parts, kind, symmetric, dt):
    """The scales and the zero points of an array of arrays."""
    found = [[parameters(part, kind, symmetric) for part in row] for row in parts]
    s, z = (np.array([[p[i] for p in row] for row in found]) for i in (0, 1))
    return s.astype(dt), z


def blocked(cases, d, axis, size, kind, symmetric, bounds, dt, rng, limit):
    """A case of blocks along an axis of a matrix; d holds them along its last axis, the last one ragged."""
    starts = range(0, d.shape[1], size)
    s, z = of_each([[row[i : i + size] for i in starts] for row in d], kind, symmetric, dt)
    each = lambda p: np.repeat(p, size, axis=1)[:, : d.shape[1]]
    x = hurt(each(s), each(z), bounds, dt, rng, d.shape, limit=limit)
    s, z, x, d = (np.ascontiguousarray(a if axis == 1 else a.T) for a in (s, z, x, d))
    settings = dict(bits=int(kind.strip("uint")), symmetric=symmetric, bounds=bounds, groups=("group", axis, size))
    if not np.isfinite(s.astype(F64)).all():
        return cases.refuse(d, **settings)
    cases.add(x, s, z, data=d, **quantize(x, s, z, kind, settings["groups"]), **settings)


def given(cases, axis, kind, bounds, dt, rng, limit):
    """A case of parameters that no calibration gave."""
    shape = cases.shape(axis, 76)
    count = 1 if axis is None else shape[axis]
    s = rng.choice(scales(dt, rng, 20), count) if count > 1 else scales(dt, rng, 1)
    z = rng.choice(zero_points(*bounds), count)
    x = hurt(along(s, axis), along(z, axis), bounds, dt, rng, shape, limit=limit)
    groups = None if axis is None else ("channel", axis)
    cases.add(x, s, z, **quantize(x, s, z, kind, groups), bits=int(kind.strip("uint")), symmetric=False, bounds=bounds,
              groups=groups)


def make_onnx(cases, rng):
    """NaN is left out, and |x/s| from 2^31 on: there ONNX Runtime's two kernels differ. So are 2-bit
    calibrations: ONNX Runtime's tool does not have them."""
    limit = 2.0**30
    kinds = Kinds(cases, rng)
    for kind, bounds in RANGES.items():
        bits = int(kind.strip("uint"))
        for dt in (F32, F16):
            for symmetric in (False, True) if bits > 2 else ():
                for axis in (None, 0, 1):
                    for _ in cases.rounds(1):
                        d = kinds.next(dt, axis)
                        s, z = of_each([groupings(d, axis)], kind, symmetric, dt)
                        x = hurt(along(s, axis), along(z, axis), bounds, dt, rng, cases.shape(axis, 76), limit=limit)
                        groups = None if axis is None else ("channel", axis)
                        if not np.isfinite(s.astype(F64)).all():
                            cases.refuse(d, bits=bits, symmetric=symmetric, bounds=bounds, groups=groups)
                            continue
                        s, z = s.ravel(), z.ravel()
                        cases.add(x, s, z, data=d, **quantize(x, s, z, kind, groups), bits=bits, symmetric=symmetric,
                                  bounds=bounds, groups=groups)
            for axis, size in ((1, 5), (0, 3)) if bits > 2 else ():
                for symmetric in (False, True) if cases.live else (False,):
                    for _ in cases.rounds(1):
                        d = kinds.next(dt, rows=16, columns=8192) if cases.live else kinds.next(dt, rows=8, columns=12)
                        blocked(cases, d, axis, size + 500 * cases.live, kind, symmetric, bounds, dt, rng, limit)
            for axis, rounds in ((None, 3), (0, 1), (1, 1)) if bits == 2 else ((None, 3),):
                for _ in cases.rounds(rounds):
                    given(cases, axis, kind, bounds, dt, rng, limit)
