"""Quantizes small models of many architectures with chopi, and opens what it writes with transformers.

Each model is saved by its class with a head, quantized by each scheme, and opened by that class and by the base
class. Opened right is what has no missing, unexpected or mismatched key and computes what the float model
computes with the dequantized weights; a model that is refused must not have been written.

Output: a JSON object per line for each model.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

sys.setdlopenflags(os.RTLD_LAZY)
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")

import torch
import transformers
import zoo_models
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.utils.match import match_name
from safetensors.torch import load_file, save_file

GROUPS = ["--symmetric", "--group-size", "16"]
SCHEMES = {
    "8 bits": ["--bits", "8", "--symmetric", "--per-channel", "0"],
    "4 bits in groups": ["--bits", "4", *GROUPS],
    "a plan": GROUPS,
}
# Of all bytes of the model, of which much stays in float in the smallest ones.
BUDGETS = ["35%", "50%", "70%", "85%"]
CLOSE = 1e-5
PARTS = ("weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point")


def run(program, *arguments):
    command = [str(a) for a in (program, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr.strip(), done.stdout


def dequantize(quantized, source, target):
    """Writes the float model with the weights that the quantized one stands for."""
    config = json.loads((quantized / "config.json").read_text())["quantization_config"]
    schemes = QuantizationConfig.model_validate(config).config_groups.values()
    tensors, result = load_file(quantized / "model.safetensors"), {}
    parts = {n.rpartition(".")[0] for n in tensors if n.endswith(".weight_scale")}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if module not in parts or not part.startswith("weight"):
            result[name] = tensor
    for module in parts:
        own = {name: f"{module}.{name}" for name in PARTS}
        state = {part: tensors[name] for part, name in own.items() if name in tensors}
        format = "pack-quantized" if "weight_packed" in state else "int-quantized"
        schemes_of_format = [scheme for scheme in schemes if scheme.format == format]
        [scheme] = [s for s in schemes_of_format if any(match_name(module, t) for t in s.targets)]
        compressor = BaseCompressor.get_value_from_registry(format)
        result[f"{module}.weight"] = compressor.decompress(state, scheme)["weight"]
    target.mkdir()
    for file in source.iterdir():
        if file.name != "model.safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    save_file(result, target / "model.safetensors", metadata={"format": "pt"})


def outputs(model, inputs):
    """All floats that a model gives, but for its caches."""
    taken = inspect.signature(model.forward).parameters
    with torch.no_grad():
        torch.manual_seed(2)
        found = model.eval()(**{name: value for name, value in inputs.items() if name in taken})
    flat = []

    def collect(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            flat.append(value.flatten().double())
        elif isinstance(value, (list, tuple)):
            [collect(v) for v in value]
        elif isinstance(value, dict):
            [collect(v) for v in value.values()]

    collect({k: v for k, v in found.items() if "key_values" not in k and "cache" not in k})
    return torch.cat(flat)


def weight_of(name):
    """The weight that a part of a quantized one belongs to."""
    for part in ("_packed", "_scale", "_shape", "_zero_point"):
        name = name.removesuffix(part)
    return name


def opened(cls, quantized, dequantized, inputs):
    """What is wrong where a class opens the folder, and how far its outputs are off."""
    reference, info = cls.from_pretrained(dequantized, output_loading_info=True)
    # What the float model lacks in this class is no fault of the quantized one.
    lacks = {key: set(map(str, info[key])) for key in ("missing_keys", "unexpected_keys")}
    torch.manual_seed(3)
    model, info = cls.from_pretrained(quantized, output_loading_info=True)
    problems = []
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        of = {weight_of(name) for name in lacks.get(key, ())}
        found = {str(name) for name in info[key] if weight_of(str(name)) not in of}
        if found:
            problems.append(f"{key}: {sorted(found)[:3]}")
    if not lacks["missing_keys"]:
        left, right = outputs(reference, inputs), outputs(model, inputs)
        off = float((left - right).abs().max()) if left.shape == right.shape else float("inf")
        if not off <= CLOSE:
            problems.append(f"outputs differ by {off:.3g}")
        return problems, off
    return problems, None


def plan_of(program, folder, plan):
    """Bits for each tensor under the first budget that they fit."""
    for budget in BUDGETS:
        status, error, _ = run(
            program,
            "sensitivity",
            folder,
            "-o",
            plan,
            "--force",
            "--bits",
            "3,4,8",
            "--budget",
            budget,
            "--quiet",
            *GROUPS,
        )
        if status == 0 and len(set(json.loads(plan.read_text()).values())) > 1:
            return None
    # Stacked experts, which have one width, are nearly all of some models.
    status, error, printed = run(
        program,
        "quantize",
        folder,
        "-o",
        folder / "out",
        "--format",
        "compressed-tensors",
        "--dry-run",
        "--bits",
        "4",
        *GROUPS,
    )
    if status != 0:
        return error
    taken = [name for name, what in json.loads(printed)["tensors"].items() if "bits" in what]
    bits = {name: 4 if ".experts." in name else (3, 8, 4)[i % 3] for i, name in enumerate(taken)}
    plan.write_text(json.dumps(bits))
    return None


def check(program, model_type, name, values, inputs):
    result = dict(model_type=model_type, name=name, schemes={})
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        model = zoo_models.build(model_type, name, values)
        model.save_pretrained(work / "float")
        inputs = inputs(model.config)
        head = type(model)
        for scheme, options in SCHEMES.items():
            found = result["schemes"][scheme] = dict(problems=[])
            out = work / scheme.replace(" ", "-")
            if scheme == "a plan":
                error = plan_of(program, work / "float", work / "plan.json")
                if error is not None:
                    found["refused"] = f"sensitivity: {error}"
                    continue
                options = ["--bits-from", work / "plan.json", *options]
            status, error, printed = run(
                program,
                "quantize",
                work / "float",
                "-o",
                out,
                "--format",
                "compressed-tensors",
                "--json",
                *options,
            )
            if status != 0:
                found["refused"] = error.removeprefix("chopi: ").removeprefix(f"{work}/float: ")
                if out.exists():
                    found["problems"].append("refused and written")
                continue
            rows = json.loads(printed)["tensors"]
            bits = sorted({row["bits"] for row in rows if row["bits"]})
            found.update(
                bits=bits, tensors=len(rows), quantized=sum(row["bits"] is not None for row in rows)
            )
            kept = {}
            for row in rows:
                if row["bits"] is None and len(row["shape"]) >= 2:
                    reason = row.get("kept", "")
                    kept[reason] = kept.get(reason, 0) + 1
            found["kept"] = kept
            floats = work / f"{out.name}-float"
            try:
                dequantize(out, work / "float", floats)
                for cls in (head, transformers.AutoModel):
                    problems, off = opened(cls, out, floats, inputs)
                    which = "task" if cls is head else "base"
                    found[which] = off
                    found["problems"] += [f"{which}: {problem}" for problem in problems]
            except Exception as error:
                line = str(error).strip().split("\n")[0][:200]
                found["problems"].append(f"{type(error).__name__}: {line}")
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("types", nargs="*")
    a = parser.parse_args()
    for model_type, name, values, inputs in zoo_models.MODELS:
        if a.types and model_type not in a.types:
            continue
        try:
            result = check(a.program, model_type, name, values, inputs)
        except Exception as error:
            line = str(error).strip().split("\n")[0][:200]
            result = dict(
                model_type=model_type, name=name, schemes={}, note=f"{type(error).__name__}: {line}"
            )
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
