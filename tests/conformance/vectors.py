"""Cases as safetensors: what goes into a library and what comes out, a file of many or a stream of each.

Case I has the tensors I.x and, where the library gives them, I.codes, I.dequantized and
I.fake_quantized (not where it equals I.dequantized); I.scale and I.zero_point (not where it is 0) are
the parameters. With I.data the library calibrated them on that tensor (with "same" in the settings on I.x), without
it they were given to it. A refused case has I.x alone: on that the library's parameters are no
numbers that can be used, and chopi must refuse to calibrate. The metadata entry "cases" is a JSON
list of the cases' settings, and "libraries" says the versions.
"""

import json
import math
import sys
from importlib.metadata import version

import numpy as np

from inputs import BF16, F16, F32, F64

FLOATS = {F16: "f16", BF16: "bf16", F32: "f32", F64: "f64"}


def shape_of_parameters(shape, groups):
    """groups: None, ("channel", axis) or ("group", axis, size)."""
    if groups is None:
        return [1]
    _, axis, *size = groups
    if not size:
        return [shape[axis]]
    lengths = list(shape)
    lengths[axis] = -(-shape[axis] // size[0])
    return lengths


class Cases:
    """The cases of one convention. What makes them asks how many, and how large ones."""

    def __init__(self, convention, libraries):
        self.convention = convention
        self.libraries = ", ".join(f"{name} {version(name)}" for name in libraries)
        self.cases, self.tensors, self.values = [], {}, 0

    def add(self, x, scale, zero_point, *, bits, symmetric, bounds, groups=None, **tensors):
        """One case. tensors: data, codes, dequantized, fake_quantized."""
        x, scale, zero_point = np.asarray(x), np.asarray(scale, F64), np.asarray(zero_point, F64)
        data = tensors.pop("data", None)
        if data is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
            return self.refuse(data, bits=bits, symmetric=symmetric, bounds=bounds, groups=groups)
        shape = shape_of_parameters(x.shape, groups)
        scale = np.broadcast_to(scale, shape) if groups is None else scale.reshape(shape)
        zero = np.zeros(shape) + (zero_point.reshape(shape) if zero_point.size > 1 else zero_point.reshape(()))
        # Parameters that chopi refuses to be given.
        if not (np.isfinite(scale).all() and (scale > 0).all() and np.isfinite(zero).all()):
            return
        for name in ("codes", "dequantized", "fake_quantized"):
            assert name not in tensors or tensors[name].shape == x.shape, (name, tensors[name].shape, x.shape)
        integers = (zero == np.rint(zero)).all() and self.convention != "pychop-torch"
        tensors |= {"x": x, "scale": scale.astype(F32) if (scale == scale.astype(F32)).all() else scale}
        if zero.any():
            tensors["zero_point"] = zero.astype("i4" if integers else F64)
        if data is not None and data is not x:
            tensors["data"] = data
        if "fake_quantized" in tensors and "dequantized" in tensors:
            if tensors["fake_quantized"].tobytes() == tensors["dequantized"].tobytes():
                del tensors["fake_quantized"]
        self.case(tensors, bits, symmetric, bounds, groups, same=data is x)

    def refuse(self, x, *, bits, symmetric, bounds, groups=None):
        """A case of data that chopi must refuse."""
        self.case({"x": np.asarray(x)}, bits, symmetric, bounds, groups, refused=True)

    def case(self, tensors, bits, symmetric, bounds, groups, **flags):
        settings = dict(float=FLOATS[tensors["x"].dtype], bits=bits, qmin=int(bounds[0]), qmax=int(bounds[1]))
        settings |= dict(zip(("granularity", "axis", "size"), groups or ()))
        settings |= {name: True for name, is_set in (flags | dict(symmetric=symmetric)).items() if is_set}
        for name, tensor in tensors.items():
            if name == "codes":
                tensor = smallest_type(np.asarray(tensor))
            self.tensors[f"{len(self.cases)}.{name}"] = np.ascontiguousarray(tensor)
        self.cases.append(settings)
        if "scale" in tensors:
            self.values += tensors["x"].size

    def safetensors(self):
        """The cases so far."""
        names = {F16: "F16", BF16: "BF16", F32: "F32", F64: "F64"}
        cases = json.dumps(self.cases, separators=(",", ":"))
        header, end = {"__metadata__": {"cases": cases, "libraries": self.libraries}}, 0
        for name, t in self.tensors.items():
            dtype = names.get(t.dtype) or f"{t.dtype.kind.upper()}{8 * t.dtype.itemsize}"
            header[name] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [end, end + t.nbytes]}
            end += t.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return b"".join([len(text).to_bytes(8, "little"), text, *(t.tobytes() for t in self.tensors.values())])


class File(Cases):
    """Few and small cases, for a file."""

    live, channels, columns = False, 4, 10

    def rounds(self, count):
        return range(count)

    def shape(self, axis, count):
        """The shape of about count values with parameters along an axis (or None)."""
        return [(count,), (4, count // 4), (count // 4, 4)][0 if axis is None else 1 + axis]

    def write(self, folder):
        path = folder / f"{self.convention}.safetensors"
        path.write_bytes(self.safetensors())
        print(f"{path.name}: {len(self.cases)} cases, {self.values} values, {path.stat().st_size} bytes")


class Stream(Cases):
    """Large cases until there are so many values of each scheme, for standard output: each case is
    its length, 8 bytes, and then so many bytes of safetensors."""

    live, channels, columns = True, 32, 40

    def __init__(self, convention, libraries, values):
        super().__init__(convention, libraries)
        self.target = values

    def rounds(self, count):
        start, rounds = self.values, 0
        while self.values - start < self.target:
            assert rounds < 1000 or self.values > start, "every case is left out"
            yield rounds
            rounds += 1

    def shape(self, axis, count):
        size = min(1 << 16 if axis is None else 1 << 17, 2 ** math.ceil(math.log2(self.target)))
        return [(size,), (32, size // 32), (size // 32, 32)][0 if axis is None else 1 + axis]

    def case(self, *arguments, **flags):
        super().case(*arguments, **flags)
        record = self.safetensors()
        sys.stdout.buffer.write(len(record).to_bytes(8, "little") + record)
        self.cases, self.tensors = [], {}


def smallest_type(codes):
    """The codes in the smallest integer type that holds them."""
    if codes.dtype.itemsize == 1 and codes.dtype.kind in "iu":
        return codes.view(codes.dtype)
    low, high = int(codes.min()), int(codes.max())
    for t in ("i1", "u1", "i2", "u2", "i4"):
        if low >= np.iinfo(t).min and high <= np.iinfo(t).max:
            return codes.astype(t)
    raise ValueError(f"codes of {low} to {high}")
