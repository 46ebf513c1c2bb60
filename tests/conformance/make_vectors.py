"""What the real libraries make of inputs that are chosen to hurt: vectors for the tests.

    python make_vectors.py [--seed N] [--out FOLDER] [CONVENTION ...]

writes <convention>.safetensors, beside this file. vectors.py says what such a file holds; inputs.py
makes the inputs, and peers/ runs the libraries of requirements.txt, on an x86-64 CPU with AVX2.
`cargo xtask conformance` compares chopi with them on many more values than the files have, by

    python make_vectors.py --seed N --live VALUES CONVENTION

which writes records of that many values for each scheme to standard output.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from vectors import File, Stream


def conventions(name):
    """The function that makes the cases of a convention, and the libraries that it needs."""
    if name == "torch" or name == "torch-fake":
        from peers import pytorch

        return getattr(pytorch, "make_" + name.replace("-", "_")), ["torch"]
    if name.startswith("pychop"):
        from peers import pychop_backends

        of_backend = {"pychop": ["numpy"], "pychop-torch": ["torch"], "pychop-jax": ["jax", "jaxlib"]}
        return getattr(pychop_backends, "make_" + name.replace("-", "_")), ["pychop", *of_backend[name]]
    if name == "onnx":
        from peers import onnx_runtime

        return onnx_runtime.make_onnx, ["onnxruntime", "onnx"]
    if name == "compressed-tensors":
        from peers import compressed

        return compressed.make_compressed_tensors, ["compressed-tensors", "torch"]
    if name == "tflite":
        from peers import lite_rt

        return lite_rt.make_tflite, ["ai-edge-litert"]
    if name == "aqt":
        from peers import aqt_jax

        return aqt_jax.make_aqt, ["aqtp", "jax", "jaxlib"]
    raise SystemExit(f"there is no convention {name!r}, expected one of: {', '.join(ALL)}")


ALL = ["pychop", "pychop-torch", "pychop-jax", "torch", "torch-fake", "onnx", "compressed-tensors", "tflite", "aqt"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("conventions", nargs="*", default=ALL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--live", type=int)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in arguments.conventions:
        make, libraries = conventions(name)
        rng = np.random.default_rng(arguments.seed)
        if arguments.live is not None:
            make(Stream(name, libraries, arguments.live), rng)
        else:
            cases = File(name, libraries)
            make(cases, rng)
            cases.write(arguments.out)


if __name__ == "__main__":
    main()
