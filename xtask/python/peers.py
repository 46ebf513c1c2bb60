"""Times the peers of chopi, a call at a time, as `cargo xtask peers` asks for it.

Arguments: the file of the data (f32), the number of threads. Each line of standard input is a JSON
list [case, n, seconds]; the answer is a line with a JSON object: for each peer that has the case, the
nanoseconds of a call on the first n elements, the mean of as many calls as fit `seconds` (at least
one). The first answer are the versions.
"""

import json
import sys
import time
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pychop.np.integer
import pychop.tch.integer
import torch
from onnx import TensorProto, helper, numpy_helper

warnings.simplefilter("ignore")
data, threads = np.fromfile(sys.argv[1], np.float32), int(sys.argv[2])
torch.set_num_threads(threads)
COLUMNS = 1024


def arrays(n):
    x = data[:n]
    return x.reshape(-1, COLUMNS) if n % COLUMNS == 0 else x


def onnx_session(graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnx_quantize(x, scale):
    """A session of one QuantizeLinear."""
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        "quantize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, x.shape)],
        [
            numpy_helper.from_array(np.array(scale, np.float32), "scale"),
            numpy_helper.from_array(np.array(128, np.uint8), "zero"),
        ],
    )
    session = onnx_session(graph)
    return lambda: session.run(None, {"x": x})


def onnx_matmul(rows, depth, columns, dtype, element):
    """A session of one MatMulInteger with constant weights."""
    rng = np.random.default_rng(0)
    left = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (rows, depth), dtype, True)
    weights = rng.integers(-128, 127, (depth, columns), np.int8, True)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "zero"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", element, left.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (rows, columns))],
        [numpy_helper.from_array(weights, "b"), numpy_helper.from_array(np.array(3, dtype), "zero")],
    )
    session = onnx_session(graph)
    binding, out = session.io_binding(), np.empty((rows, columns), np.int32)
    binding.bind_cpu_input("a", left)
    binding.bind_output("y", "cpu", 0, np.int32, out.shape, out.ctypes.data)
    # The buffers must live as long as the call does.
    return lambda kept=(left, out): session.run_with_iobinding(binding)


def calls(case, n):
    """The call of each peer."""
    if case.startswith("matmul "):
        shape = [int(length) for length in case.split()[1:]]
        return {
            "onnxruntime, u8 · i8": onnx_matmul(*shape, np.uint8, TensorProto.UINT8),
            "onnxruntime, i8 · i8": onnx_matmul(*shape, np.int8, TensorProto.INT8),
        }
    x = arrays(n)
    t = torch.from_numpy(x)
    rows, columns = (x.shape if x.ndim == 2 else (1, n))
    scale = float(np.abs(x).max() / 127)
    per_row = torch.full((rows,), scale)
    per_column = torch.full((columns,), scale)
    zeros = lambda count: torch.full((count,), 128, dtype=torch.int32)
    if case == "quantize per tensor":
        return {
            "torch": lambda: torch.quantize_per_tensor(t, scale, 128, torch.quint8),
            "onnxruntime": onnx_quantize(x, scale),
        }
    if case == "quantize per channel, axis 0":
        zero = zeros(rows).long()
        return {"torch": lambda: torch.quantize_per_channel(t, per_row, zero, 0, torch.quint8)}
    if case == "quantize per channel, last axis":
        zero = zeros(columns).long()
        return {"torch": lambda: torch.quantize_per_channel(t, per_column, zero, 1, torch.quint8)}
    if case == "fake-quantize per tensor":
        return {"torch": lambda: torch.fake_quantize_per_tensor_affine(t, scale, 128, 0, 255)}
    if case == "fake-quantize per channel, axis 0":
        zero = zeros(rows)
        return {
            "torch": lambda: torch.fake_quantize_per_channel_affine(t, per_row, zero, 0, 0, 255)
        }
    if case == "min/max":
        return {"torch": lambda: torch.aminmax(t)}
    if case == "histogram":
        # As many bins as chopi's has at most; the range is that of the data.
        return {"torch": lambda: torch.histc(t, bins=4096)}
    if case == "dequantize":
        q = torch.quantize_per_tensor(t, scale, 128, torch.quint8)
        return {"torch": lambda: q.dequantize()}
    if case == "calibrate + quantize":
        peers = {}
        modules = (("pychop (NumPy)", pychop.np.integer, x), ("pychop (torch)", pychop.tch.integer, t))
        for name, module, array in modules:
            chopi = module.Chopi_(bits=8, symmetric=False)

            def call(chopi=chopi, array=array):
                chopi.calibrate(array)
                return chopi.quantize(array)

            peers[name] = call
        return peers
    return {}


def seconds_of(call, count):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


versions = {m.__name__: m.__version__ for m in (torch, ort, onnx, np)}
versions["pychop"] = "0.6.2"
print(json.dumps(versions), flush=True)
current, peers = None, {}
for line in sys.stdin:
    case, n, budget = json.loads(line)
    if (case, n) != current:
        current, peers = (case, n), calls(case, n)
        counts = {}
        for name, call in peers.items():
            call()
            counts[name] = max(1, int(budget / max(seconds_of(call, 1), 1e-9)))
    times = {name: seconds_of(call, counts[name]) / counts[name] * 1e9 for name, call in peers.items()}
    print(json.dumps(times), flush=True)
