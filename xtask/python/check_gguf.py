"""Compares what the program writes and reads of GGUF with the Python package `gguf`, to the bit.

Arguments: the program, and GGUF files to dequantize. Output: one JSON object with the counts of what was compared
and of what differs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import load_file, save_file

QUANTIZED = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]
READ = [T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
# Where the f16 of a block of a type that is only read lie.
HALVES = {T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
ROWS, WIDTH = 4096, 512


def matrices(rng):
    """Matrices of many sizes of numbers, with ties, constant rows and large outliers."""
    normal = rng.normal(size=(ROWS, WIDTH))
    yield "normal", normal
    yield "sizes", normal * 10.0 ** rng.integers(-6, 5, size=(ROWS, 1))
    yield "steps", rng.integers(-127, 128, size=(ROWS, WIDTH)) / 2
    yield "constant", np.repeat(rng.normal(size=(ROWS, WIDTH // 32)), 32, axis=1)
    yield "outliers", normal * np.where(rng.random((ROWS, WIDTH)) < 0.01, 1000, 1)
    yield "positive", np.abs(normal) + 1
    yield "negative", -np.abs(normal) - 1
    # Every bit pattern of f32 that f16 holds a scale for; subnormals are where the definition ends.
    bits = rng.integers(0x2F000000, 0x47000000, size=(ROWS, WIDTH), dtype=np.uint32)
    sign = rng.integers(0, 2, size=(ROWS, WIDTH), dtype=np.uint32) << 31
    yield "bits", (bits | sign).view(np.float32)


def differing(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return max(a.size, b.size, 1)
    return int(np.count_nonzero(a.view(np.uint8) != b.view(np.uint8)))


class Check:
    def __init__(self, program, folder):
        self.program, self.folder = program, Path(folder)
        self.result = dict(blocks={}, values={}, files={}, notes=[])

    def run(self, *args):
        subprocess.run([self.program, *map(str, args), "--force", "--quiet"], check=True)

    def count(self, what, name, compared, wrong):
        counts = self.result[what].setdefault(name, [0, 0])
        counts[0] += int(compared)
        counts[1] += wrong
        if wrong:
            self.result["notes"].append(f"{what} of {name}: {wrong} bytes differ")

    def quantized(self, kind, tensors):
        """Quantizes by the program, and compares with what `gguf` makes and reads."""
        model, out = self.folder / "model.safetensors", self.folder / "out.gguf"
        save_file(tensors, model)
        self.run("quantize", model, "-o", out, "--gguf", kind.name.lower())
        reader = gguf.GGUFReader(out)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        assert fields["general.quantization_version"] == 2, fields
        assert fields["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{kind.name}"], fields
        found = {tensor.name: tensor for tensor in reader.tensors}
        assert found.keys() == tensors.keys(), found.keys()
        for name, x in tensors.items():
            tensor = found[name]
            assert [*reversed(tensor.shape.tolist())] == [*x.shape]
            if x.ndim == 1:
                assert tensor.tensor_type == T.F32
                self.count("blocks", "F32", x.size, differing(np.asarray(tensor.data), x))
                continue
            expected = gguf.quants.quantize(x.astype(np.float32), kind)
            assert tensor.tensor_type == kind
            self.count("blocks", kind.name, x.size, differing(np.asarray(tensor.data), expected))
        self.dequantized(out)

    def dequantized(self, path, name=None):
        """Dequantizes by the program, and compares with what `gguf` makes."""
        back = self.folder / "back.safetensors"
        self.run("dequantize", path, "-o", back)
        back = load_file(back)
        for tensor in gguf.GGUFReader(path).tensors:
            data = np.asarray(tensor.data)
            y = back.pop(tensor.name)
            plain = tensor.tensor_type in (T.F32, T.F16)
            expected = data if plain else gguf.quants.dequantize(data, tensor.tensor_type)
            self.count("values", tensor.tensor_type.name, y.size, differing(expected, y))
        assert not back, back.keys()

    def written_by_gguf(self, kind, rng):
        """A file that `gguf` writes, of blocks of bytes at random."""
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 256, size=(1024, size), dtype=np.uint8)
        for at in HALVES.get(kind, []):
            scales = (rng.normal(size=1024) * 0.1).astype(np.float16)
            data[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        path = self.folder / "theirs.gguf"
        writer = gguf.GGUFWriter(path, "none")
        writer.add_array("tokens", ["a", "b"])
        writer.add_tensor("x.weight", data.reshape(256, 4 * size), raw_dtype=kind)
        writer.add_tensor("bias", rng.normal(size=3).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        self.dequantized(path)


def main(program, *files):
    rng = np.random.default_rng(18)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(program, folder)
        for kind in QUANTIZED:
            tensors = {f"{name}.weight": x.astype(np.float32) for name, x in matrices(rng)}
            tensors["half.weight"] = tensors["normal.weight"].astype(np.float16)
            tensors["double.weight"] = tensors["normal.weight"].astype(np.float64) * 1.1
            tensors["bias"] = np.arange(5, dtype=np.float32)
            check.quantized(kind, tensors)
        for kind in READ:
            check.written_by_gguf(kind, rng)
        for file in files:
            check.dequantized(file)
            check.result["files"][Path(file).name] = len(gguf.GGUFReader(file).tensors)
    print(json.dumps(check.result))


main(*sys.argv[1:])
