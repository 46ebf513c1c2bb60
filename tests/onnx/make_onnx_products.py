"""Writes onnx-products.safetensors beside this file: inputs of MatMulInteger, QLinearMatMul, ConvInteger
and QLinearConv, and what ONNX's reference evaluator and ONNX Runtime make of them.

    python make_onnx_products.py [--seed N] [--cases N] [--values N] [--out FOLDER]

Needs onnx and onnxruntime of ../conformance/requirements.txt. To compare chopi with them on other numbers, and more:

    python make_onnx_products.py --seed 1 --cases 5000 --values 1000 --out /tmp/vectors
    CHOPI_VECTORS=/tmp/vectors cargo test --features matmul --test onnx_products -- --nocapture

The file is laid out as make_onnx_operators.py says; a case takes: the codes of the left operand (of the
input), its scale and its zero point, those of the right operand (of the weights), y_scale and
y_zero_point, the bias; each where the operator and the case have it; and then the output of each of its
"peers". A peer that does not implement a case, or fails, is not in it.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import onnxruntime

from make_onnx_operators import FLOATS, PEERS, RANGES, Operators, run

KINDS = ["uint8", "int8"]


def some_codes(rng, kind, shape):
    """Any codes, and many from both ends."""
    lo, hi = RANGES[kind]
    q = rng.integers(lo, hi, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.2, rng.choice([lo, hi, lo + hi + 1 >> 1], shape), q)


def some_scales(rng, shape, dt):
    """Of powers of two come ties."""
    s = np.exp2(rng.integers(-6, 3, shape)) if rng.random() < 0.5 else np.exp2(rng.uniform(-6, 2, shape))
    return s.astype(dt)


def some_y_scale(rng, a, b, depth):
    """One with which most of the sums of a product are codes; of powers of two, and more so of those near
    that of the operands, come ties."""
    unit = float(np.max(a, initial=0) * np.max(b, initial=0)) or 1.0
    if rng.random() < 0.3:
        return np.float64(unit * 2.0 ** rng.integers(1, 5))
    spread = np.exp2(np.round(np.log2(unit * 64 * float(depth) ** 0.5) + rng.uniform(-2, 2)))
    return np.float64(spread * (1 if rng.random() < 0.5 else rng.uniform(0.5, 1)))


def per_line(rng, operand, left):
    """The shape of the parameters of an operand of a product."""
    rank, kind = len(operand), rng.choice(["scalar", "scalar", "one", "lines", "vector"])
    if kind == "one":
        return (1,)
    if rank < 2 or kind == "scalar":
        return ()
    line, other = (rank - 2, rank - 1) if left else (rank - 1, rank - 2)
    if kind == "vector" and rank == 2:
        return (operand[line],)
    return tuple(1 if axis == other else n for axis, n in enumerate(operand))


def product_shapes(rng, values):
    m, k, n = (int(rng.integers(1, 9)) for _ in range(3))
    if rng.random() < 0.3:
        k = int(rng.integers(1, max(2, values)))
    batch = [int(n) for n in rng.integers(1, 4, rng.choice([0, 0, 0, 1, 2]))]

    def with_batch(matrix):
        if rng.random() < 0.3:
            return matrix
        return tuple(n if rng.random() < 0.7 else 1 for n in batch) + matrix

    a, b = with_batch((m, k)), with_batch((k, n))
    if rng.random() < 0.1:
        a = (k,)
    if rng.random() < 0.1:
        b = (k,)
    if rng.random() < 0.02:
        a, b = a[:-2] + (0, k), b
    return a, b


def conv_shapes(rng):
    """(attributes, shape of the input, shape of the weights)"""
    axes, group = int(rng.choice([1, 2, 2, 2, 3])), int(rng.choice([1, 1, 1, 2, 3]))
    kernel, strides, dilations = (rng.integers(1, high, axes) for high in (4, 4, 3))
    pads = rng.integers(0, 3, 2 * axes)
    attributes = {}
    auto = rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"], p=[0.7, 0.1, 0.1, 0.1])
    if auto != "NOTSET" or rng.random() < 0.1:
        attributes["auto_pad"] = str(auto)
    if auto != "NOTSET" or rng.random() < 0.3:
        pads = 0 * pads
    else:
        attributes["pads"] = pads.tolist()
    if rng.random() < 0.6:
        attributes["strides"] = strides.tolist()
    else:
        strides = np.ones(axes, int)
    if rng.random() < 0.4:
        attributes["dilations"] = dilations.tolist()
    else:
        dilations = np.ones(axes, int)
    if group > 1 or rng.random() < 0.2:
        attributes["group"] = group
    if rng.random() < 0.3:
        attributes["kernel_shape"] = kernel.tolist()
    span = (kernel - 1) * dilations + 1
    spatial = np.maximum(span - pads[:axes] - pads[axes:], 1) + rng.integers(0, 5, axes)
    batch, depth, channels = int(rng.integers(1, 3)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    x = (batch, depth * group, *(int(n) for n in spatial))
    return attributes, x, (channels * group, depth, *(int(n) for n in kernel))


def some_kinds(rng):
    # ONNX Runtime takes no int8 on the left with uint8 on the right, and has the left one's type on output.
    a, b = str(rng.choice(KINDS)), str(rng.choice(KINDS))
    return a, b, (a if rng.random() < 0.8 else str(rng.choice(KINDS)))


class Products(Operators):
    """The cases of the four operators."""

    def product(self, case, operator, inputs, y, attributes, rank, peers=PEERS):
        """inputs: (array, kind) or None each; of the peers those that fail, or whose output has another
        rank, are left out."""
        tried, peers = peers, []
        for peer in tried:
            try:
                outputs = run(peer, operator, inputs, [y], attributes)
            except (ValueError, IndexError, TypeError, onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
                    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
                    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
                    onnxruntime.capi.onnxruntime_pybind11_state.Fail) as error:
                self.failed.append((operator, peer, str(error)))
                continue
            if outputs is not None and np.ndim(outputs[0]) == rank:
                peers.append(peer)
        if peers:
            self.add(case, operator, inputs, [y], attributes, peers)

    def matmul(self, rng, values, quantized):
        a_kind, b_kind, y_kind = some_kinds(rng)
        a_shape, b_shape = product_shapes(rng, values)
        a_each, b_each = per_line(rng, a_shape, True), per_line(rng, b_shape, False)
        a, b = some_codes(rng, a_kind, a_shape), some_codes(rng, b_kind, b_shape)
        a_zero, b_zero = some_codes(rng, a_kind, a_each), some_codes(rng, b_kind, b_each)
        rank = max(len(a_shape), len(b_shape), 2) - (len(a_shape) == 1) - (len(b_shape) == 1)
        case = dict(a=a_kind, b=b_kind, shapes=[a_shape, b_shape], parameters=[a_each, b_each])
        # The reference evaluator takes a vector on the left as parameters of the columns.
        peers = PEERS[1:] if len(a_each) == 1 and a_each != (1,) else PEERS
        if not quantized:
            without = rng.random() < 0.2, rng.random() < 0.2
            case["parameters"] = [None if none else each for none, each in zip(without, (a_each, b_each))]
            zeros = [None if none else zero for none, zero in zip(without, ((a_zero, a_kind), (b_zero, b_kind)))]
            self.product(case, "MatMulInteger", [(a, a_kind), (b, b_kind), *zeros], "int32", {}, rank, peers)
            return
        scale = "f16" if rng.random() < 0.05 else "f32"
        a_scale, b_scale = (some_scales(rng, each, FLOATS[scale]) for each in (a_each, b_each))
        y_scale = some_y_scale(rng, a_scale, b_scale, a_shape[-1]).astype(FLOATS[scale])
        y_zero = some_codes(rng, y_kind, ())
        case |= dict(scale=scale, y=y_kind)
        inputs = [(a, a_kind), (a_scale, scale), (a_zero, a_kind), (b, b_kind), (b_scale, scale), (b_zero, b_kind),
                  (y_scale, scale), (y_zero, y_kind)]
        self.product(case, "QLinearMatMul", inputs, y_kind, {}, rank, peers)

    def conv(self, rng, quantized):
        x_kind, w_kind, y_kind = some_kinds(rng)
        attributes, x_shape, w_shape = conv_shapes(rng)
        each = [(), (1,), (w_shape[0],), (w_shape[0],)][rng.integers(4)]
        x, w = some_codes(rng, x_kind, x_shape), some_codes(rng, w_kind, w_shape)
        x_zero, w_zero = some_codes(rng, x_kind, ()), some_codes(rng, w_kind, each)
        if rng.random() < 0.5:
            # ONNX Runtime's QLinearConv has one zero point for all channels.
            w_zero = np.broadcast_to(w_zero.reshape(-1)[:1].reshape([1] * w_zero.ndim), each)
        case = dict(a=x_kind, b=w_kind, shapes=[x_shape, w_shape], parameters=[(), each], attributes=attributes)
        # The reference evaluator takes parameters of channels as of two spatial axes.
        peers = PEERS[1:] if each and each != (1,) and x.ndim != 4 else PEERS
        if not quantized:
            without = rng.random() < 0.2, rng.random() < 0.2
            case["parameters"] = [None if none else each for none, each in zip(without, ((), each))]
            zeros = [None if none else zero for none, zero in zip(without, ((x_zero, x_kind), (w_zero, w_kind)))]
            self.product(case, "ConvInteger", [(x, x_kind), (w, w_kind), *zeros], "int32", attributes, x.ndim, peers)
            return
        x_scale, w_scale = some_scales(rng, (), FLOATS["f32"]), some_scales(rng, each, FLOATS["f32"])
        y_scale = some_y_scale(rng, x_scale, w_scale, np.prod(w_shape[1:])).astype(FLOATS["f32"])
        y_zero = some_codes(rng, y_kind, ())
        case |= dict(scale="f32", y=y_kind, bias=bool(rng.random() < 0.5))
        bias = (rng.integers(-3000, 3000, w_shape[0]), "int32") if case["bias"] else None
        inputs = [(x, x_kind), (x_scale, "f32"), (x_zero, x_kind), (w, w_kind), (w_scale, "f32"), (w_zero, w_kind),
                  (y_scale, "f32"), (y_zero, y_kind), bias]
        self.product(case, "QLinearConv", inputs, y_kind, attributes, x.ndim, peers)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=240, help="how many, of all operators")
    parser.add_argument("--values", type=int, default=40, help="the most products of a sum of a matrix product")
    parser.add_argument("--out", default=Path(__file__).parent)
    parser.add_argument("--failures", action="store_true", help="say why peers are left out")
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([arguments.seed, 26])
    vectors = Products()
    vectors.failed = []
    operators = [
        lambda: vectors.matmul(rng, arguments.values, False),
        lambda: vectors.matmul(rng, arguments.values, True),
        lambda: vectors.conv(rng, False),
        lambda: vectors.conv(rng, True),
    ]
    for operator in itertools.islice(itertools.cycle(operators), arguments.cases):
        operator()
    vectors.write(arguments.out, "onnx-products.safetensors")
    if arguments.failures:
        for reason in sorted({(operator, peer, error.split("\n")[0][:200]) for operator, peer, error in vectors.failed}):
            print(*reason, sep=": ")


if __name__ == "__main__":
    main()
