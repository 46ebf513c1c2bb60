"""TensorFlow Lite, as ai-edge-litert: the parameters of the converter, the reference kernels."""

import flatbuffers
import numpy as np
from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as wrapper
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from inputs import F32, F64, KINDS, along, channel, data, finfo, hurt, scales, zero_points

TYPES = {"float32": 0, "int16": 7, "int8": 9}


def tensor(name, shape, kind, buffer=0, scale=None, zero_point=None, axis=0):
    t = schema.TensorT()
    t.name, t.shape, t.type, t.buffer = name, list(shape), TYPES[kind], buffer
    if scale is not None:
        p = schema.QuantizationParametersT()
        p.scale, p.zeroPoint = np.atleast_1d(np.asarray(scale, F32)), np.atleast_1d(np.asarray(zero_point, "i8"))
        p.quantizedDimension = axis
        t.quantization = p
    return t


def one_operator(tensors, operator, version, inputs, outputs, options=None, buffers=()):
    """A model of one operator."""
    code, op, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, min(operator, 127), version
    op.opcodeIndex, op.inputs, op.outputs = 0, inputs, outputs
    if options:
        op.builtinOptionsType, op.builtinOptions = options
    graph.tensors, graph.operators, graph.name = tensors, [op], "main"
    graph.inputs, graph.outputs = inputs[:1], outputs
    model.version, model.description, model.operatorCodes, model.subgraphs, model.buffers = 3, "", [code], [graph], []
    for content in (b"", *buffers):
        b = schema.BufferT()
        b.data = np.frombuffer(content, "u1") if content else None
        model.buffers.append(b)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(operator, version, x, out_kind, parameters_of_input, s, z, axis):
    """The reference kernel of QUANTIZE or DEQUANTIZE."""
    p, none = (s, z, axis), (None, None, 0)
    tensors = [tensor("x", x.shape, x.dtype.name, 0, *(p if parameters_of_input else none)),
               tensor("y", x.shape, out_kind, 0, *(none if parameters_of_input else p))]
    model = one_operator(tensors, operator, version, [0], [1])
    it = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1)
    it.allocate_tensors()
    it.set_tensor(it.get_input_details()[0]["index"], x)
    it.invoke()
    return it.get_tensor(it.get_output_details()[0]["index"])


def quantize(x, s, z, kind, axis):
    z = np.zeros(np.size(s)) + z
    q = run(schema.BuiltinOperator.QUANTIZE, 2, x, kind, False, s, z, axis or 0)
    tensors = dict(codes=q)
    # The DEQUANTIZE kernel has no 16-bit codes per channel.
    if kind == "int8" or axis is None:
        tensors["dequantized"] = run(schema.BuiltinOperator.DEQUANTIZE, 3, q, "float32", True, s, z, axis or 0)
    return tensors


def convert(x, weights, activations, per_tensor):
    """The parameters that the converter gives the activations x and the weights of a fully connected layer."""
    rows, columns = weights.shape
    tensors = [tensor("x", (1, columns), "float32"), tensor("w", weights.shape, "float32", 1),
               tensor("y", (1, rows), "float32")]
    options = (schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT())
    model = one_operator(tensors, schema.BuiltinOperator.FULLY_CONNECTED, 1, [0, 1, -1], [2], options, [weights.tobytes()])
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


def make_tflite(cases, rng):
    """The parameters are the converter's, the codes the reference QUANTIZE kernel's. Left out: NaN and
    |x/s| from 2^31 on, which wrap; the scale 0 of all-zero channels; subnormal activations, some of
    which the calibrator flushes; and codes below -127 in symmetric schemes, whose range the kernel does
    not know."""
    limit = 2.0**30

    def add(s, z, bits, symmetric, axis, count, d=None):
        half = 2 ** (bits - 1)
        bounds = (1 - half if symmetric else -half, half - 1)
        x = hurt(along(s, axis), along(z, axis) if np.size(z) > 1 else np.ravel(z)[0], bounds, F32, rng, cases.shape(axis, count), limit=limit)
        if symmetric:
            x[x.astype(F64) / along(s, axis).astype(F64) < bounds[0]] = 0
        tensors = quantize(x, s, z, f"int{bits}", axis) | ({} if d is None else {"data": d})
        cases.add(x, s, z, bits=bits, symmetric=symmetric, bounds=bounds, groups=channel(axis), **tensors)

    # Products of the activations or weights looked at with an ordinary other do not overflow, but for
    # the last kind of data.
    def activations(k, kind):
        x = np.reshape(data(F32, rng, k % (KINDS - 1)), (1, 40))
        return x, *convert(x, data(F32, rng, 0, 4, 40), kind, kind == "int16")[0]

    def weights(k, per_tensor):
        x = data(F32, rng, k % (KINDS - 1), cases.channels, 40)
        return x, convert(data(F32, rng, 0, 1, 40), x, "int8", per_tensor)[1]

    ks = [0, 0, 0, 0]
    flushed = lambda x: 0 < np.abs(x).max() < finfo(F32).smallest_normal
    for scheme, (bits, kind) in enumerate(((8, "int8"), (16, "int16"))):
        for _ in cases.rounds(2 * (KINDS - 1)):
            x, s, z = activations(ks[scheme], kind)
            ks[scheme] += 1
            if not flushed(x):
                add(s, z, bits, bits == 16, None, 100 if bits == 8 else 64, x)
    for _ in cases.rounds(2 * (KINDS - 1)):
        x, s = weights(ks[2], True)
        ks[2] += 1
        if np.size(s) == 1:
            add(s, np.zeros(1), 8, True, None, 64, x)
    for _ in cases.rounds(2 * (KINDS - 1)):
        x, s = weights(ks[3], False)
        ks[3] += 1
        if (s > 0).all():
            add(s, np.zeros(len(s)), 8, True, 0, 108, x)
    for s in scales(F32, rng, 8):
        for z in zero_points(-128, 127):
            add(np.array([s]), np.array([z]), 8, False, None, 66)
        add(np.array([s]), np.array([0]), 16, True, None, 66)
