"""Quantizes small models of many architectures with chopi, and opens what it writes with transformers.

Each model is saved by one class, quantized by each scheme, and opened by a class with a head and by the base
class. Opened right is what has no missing, unexpected or mismatched key and computes what the float model
computes with the dequantized weights; a model that is refused must not have been written.

Output: a JSON object per line for each model.
"""

import argparse
import inspect
import json
import math
import multiprocessing
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
from transformers import CompressedTensorsConfig
from transformers.quantizers.base import _assign_is_quantized

GROUPS = ["--symmetric", "--group-size", "16"]
# transformers reads packed zero points where it dequantizes on loading.
DEQUANTIZED = "4 bits, asymmetric"
SCHEMES = {
    "8 bits": ["--bits", "8", "--symmetric", "--per-channel", "0"],
    "4 bits in groups": ["--bits", "4", *GROUPS],
    "a plan": GROUPS,
    DEQUANTIZED: ["--bits", "4", "--group-size", "16"],
}
# Of all bytes of the model, of which much stays in float in the smallest ones.
BUDGETS = ["35%", "50%", "70%", "85%"]
CLOSE = 1e-5
# Some models bring their own code.
REMOTE = dict(trust_remote_code=True)
PARTS = ("weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point")


def run(program, *arguments):
    command = [str(a) for a in (program, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr.strip(), done.stdout


def dequantize(quantized, source, target, in_f32):
    """Writes the float model with the weights that the quantized one stands for. The scales of modules that
    transformers keeps in f32, by the components of their names, are so before they are multiplied with.
    """
    config = json.loads((quantized / "config.json").read_text())["quantization_config"]
    schemes = QuantizationConfig.model_validate(config).config_groups.values()
    tensors, result = tensors_of(quantized), {}
    parts = {n.rpartition(".")[0] for n in tensors if n.endswith(".weight_scale")}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if module not in parts or not part.startswith("weight"):
            result[name] = tensor
    for module in parts:
        own = {name: f"{module}.{name}" for name in PARTS}
        state = {part: tensors[name] for part, name in own.items() if name in tensors}
        if in_f32.intersection(module.split(".")):
            state["weight_scale"] = state["weight_scale"].float()
        format = "pack-quantized" if "weight_packed" in state else "int-quantized"
        schemes_of_format = [scheme for scheme in schemes if scheme.format == format]
        [scheme] = [s for s in schemes_of_format if any(match_name(module, t) for t in s.targets)]
        compressor = BaseCompressor.get_value_from_registry(format)
        result[f"{module}.weight"] = compressor.decompress(state, scheme)["weight"]
    target.mkdir()
    for file in source.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            (target / file.name).write_bytes(file.read_bytes())
    save_file(result, target / "model.safetensors", metadata={"format": "pt"})


def in_f32(model):
    """The components of names that say that transformers keeps a module of a model in f32."""
    of_f16, always = model._keep_in_fp32_modules, model._keep_in_fp32_modules_strict
    match model.dtype:
        case torch.float16:
            return set(of_f16 or ()) | set(always or ())
        case torch.bfloat16:
            return set(always or ())
        case _:
            return set()


def outputs(model, inputs):
    """All floats that a model gives, but for its caches."""
    taken = inspect.signature(model.forward).parameters
    inputs = {name: value for name, value in inputs.items() if name in taken}
    inputs = {n: v.to(model.dtype) if v.is_floating_point() else v for n, v in inputs.items()}
    if "MultipleChoice" not in type(model).__name__:
        # To other classes each choice is a text.
        inputs = {
            n: v.flatten(0, 1) if n == "input_ids" and v.dim() == 3 else v
            for n, v in inputs.items()
        }
    with torch.no_grad():
        torch.manual_seed(2)
        found = model.eval()(**inputs)
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


def opened(cls, quantized, dequantized, inputs, how):
    """What is wrong where a class opens the folder, and how far its outputs are off."""
    reference, info = cls.from_pretrained(dequantized, output_loading_info=True, **REMOTE)
    # What the float model lacks in this class is no fault of the quantized one.
    lacks = {key: set(map(str, info[key])) for key in ("missing_keys", "unexpected_keys")}
    model, info = cls.from_pretrained(quantized, output_loading_info=True, **REMOTE, **how)
    if hasattr(model.config, "_is_quantized"):
        # Mamba layers that know it add a bias and take it away again, which rounds.
        _assign_is_quantized(reference)
    else:
        # transformers keeps nothing in f32 of what it dequantizes.
        for name, parameter in model.named_parameters():
            theirs = reference.get_parameter(name)
            theirs.data = theirs.data.to(parameter.dtype)
    problems = []
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        of = {weight_of(name) for name in lacks.get(key, ())}
        found = {str(name) for name in info[key] if weight_of(str(name)) not in of}
        if found:
            problems.append(f"{key}: {sorted(found)[:3]}")
    own, others = model.state_dict(), reference.state_dict()
    torch.manual_seed(3)
    for name in sorted(lacks["missing_keys"]):
        # Each model has random numbers of its own there, or what memory happened to hold.
        if name in others and others[name].is_floating_point():
            others[name].normal_(std=0.02)
        if name in own:
            own[name].copy_(others[name])
        elif name in others:
            problems.append(f"{name} is quantized and not in the file")
    left, right = outputs(reference, inputs), outputs(model, inputs)
    off = float((left - right).abs().max()) if left.shape == right.shape else float("inf")
    if not off <= CLOSE:
        problems.append(f"outputs differ by {off:.3g}")
    # JSON has no NaN.
    return problems, off if math.isfinite(off) else None


def plan_of(program, folder, plan, choice):
    """Bits for each tensor under the first budget that they fit."""
    for budget in BUDGETS:
        status, error, _ = run(
            program,
            *("sensitivity", folder, "-o", plan, "--force", "--quiet"),
            *("--bits", "3,4,8", "--budget", budget, *GROUPS, *choice),
        )
        if status == 0 and len(set(json.loads(plan.read_text()).values())) > 1:
            return None
    # Stacked experts, which have one width, are nearly all of some models.
    status, error, printed = run(
        program,
        *("quantize", folder, "-o", folder / "out", "--format", "compressed-tensors"),
        *("--dry-run", "--bits", "4", *GROUPS, *choice),
    )
    if status != 0:
        return error
    taken = [name for name, what in json.loads(printed)["tensors"].items() if "bits" in what]
    bits = {name: 4 if ".experts." in name else (3, 8, 4)[i % 3] for i, name in enumerate(taken)}
    plan.write_text(json.dumps(bits))
    return None


def said(error, work):
    """What the program says, without the name of the folder."""
    return error.removeprefix("chopi: ").removeprefix(f"{work}/float: ")


def tensors_of(folder):
    """The tensors of a folder, of one file or of shards."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def check(program, model):
    result = dict(model_type=model.model_type, name=model.name, case=model.case, schemes={})
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        built = zoo_models.build(model)
        built.save_pretrained(work / "float", **model.saving)
        model.changed(work / "float")
        inputs = model.inputs(built.config)
        classes = dict(
            task=getattr(transformers, model.task or model.name), base=transformers.AutoModel
        )
        for scheme, options in SCHEMES.items():
            found = result["schemes"][scheme] = dict(problems=[])
            out = work / scheme.replace(" ", "-")
            if scheme == "a plan":
                error = plan_of(program, work / "float", work / "plan.json", model.choice)
                if error is not None:
                    found["refused"] = f"sensitivity: {said(error, work)}"
                    continue
                options = ["--bits-from", work / "plan.json", *options]
            else:
                options = [*options, *model.choice]
            status, error, printed = run(
                program,
                *("quantize", work / "float", "-o", out, "--format", "compressed-tensors"),
                *("--json", *options),
            )
            if status != 0:
                found["refused"] = said(error, work)
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
            how, kept_in_f32 = {}, in_f32(built)
            if scheme == DEQUANTIZED:
                how = dict(quantization_config=CompressedTensorsConfig(dequantize=True))
                kept_in_f32 = set()
            floats = work / f"{out.name}-float"
            try:
                dequantize(out, work / "float", floats, kept_in_f32)
                for which, cls in classes.items():
                    problems, found[which] = opened(cls, out, floats, inputs, how)
                    found["problems"] += [f"{which}: {problem}" for problem in problems]
            except Exception as error:
                line = str(error).strip().split("\n")[0][:200]
                found["problems"].append(f"{type(error).__name__}: {line}")
    return result


def check_one(arguments):
    program, number = arguments
    model = zoo_models.MODELS[number]
    try:
        return check(program, model)
    except Exception as error:
        line = str(error).strip().split("\n")[0][:200]
        note = f"{type(error).__name__}: {line}"
        return dict(
            model_type=model.model_type, name=model.name, case=model.case, schemes={}, note=note
        )


def silence():
    """Progress and warnings of the libraries are not for a table; what goes wrong is an exception."""
    sys.stderr = open(os.devnull, "w")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("types", nargs="*")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    a = parser.parse_args()
    types = [model.model_type for model in zoo_models.MODELS]
    chosen = [(a.program, i) for i, of in enumerate(types) if not a.types or of in a.types]
    unknown = set(a.types) - set(types)
    if unknown:
        parser.error(f"there is no model of {', '.join(sorted(unknown))} here")
    with multiprocessing.get_context("fork").Pool(a.jobs, silence) as pool:
        for done, result in enumerate(pool.imap(check_one, chosen), 1):
            print(json.dumps(result, allow_nan=False), flush=True)
            progress = f"{done} of {len(chosen)}: {result['model_type']} {result['name']}"
            print(progress, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
