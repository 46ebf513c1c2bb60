"""Checks what `chopi quantize` would take of each model of transformers against the model's own modules.

Each model is built on the meta device; its headers are written to a file without data, of which `chopi
quantize --dry-run` says what would become of each tensor. Every class of the model type then opens that file
on paper: what is quantized must be the weight of a linear layer there, or one of the experts' matrices, and
the patterns of `quantization_config` must match exactly the modules that are quantized.

Output: one JSON object: the number of model types and classes, what is wrong, what was refused, and what
cannot be built here.
"""

import argparse
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from compressed_tensors.utils.match import is_match
from meta_models import Loading, build, classes, nn, saved

DTYPE, SIZE = "F16", 2
WEIGHT = ".weight"


def write(model, tensors, folder):
    """The model's configuration and a file with its header, whose data are a hole."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * SIZE
        shape = list(tensor.shape)
        header[name] = dict(dtype=DTYPE, shape=shape, data_offsets=[start, end])
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    model.config.save_pretrained(folder)


def dry_run(program, folder, *options):
    command = [program, "quantize", folder, "-o", folder / "out", "--dry-run"]
    command += ["--format", "compressed-tensors", "--symmetric", "--per-channel", "0", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip().removeprefix("chopi: ").removeprefix(f"{folder}: ")
    return json.loads(done.stdout), None


def mixed(plan):
    """Bits for the same tensors: 8 for every third, 4 for the others; the experts alike."""
    taken = [name for name, what in plan["tensors"].items() if "bits" in what]
    return {n: 8 if i % 3 == 0 and ".experts." not in n else 4 for i, n in enumerate(taken)}


def opened(model, load, plan, whole):
    """What is wrong where a class opens a quantized model. `whole` says that it is the class that saved it."""
    modules = dict(model.named_modules())
    layers = {name: m for name, m in modules.items() if isinstance(m, (nn.Linear, nn.Embedding))}
    expected, loaded = {}, set()
    for name, what in plan["tensors"].items():
        to, converter = load.place(name)
        loaded.add(to.rpartition(".")[0])
        if "bits" not in what:
            continue
        if converter is not None:
            stacks = type(converter.operations[0]).__name__ == "MergeModulelist"
            if not stacks or what["format"] != "pack-quantized":
                yield f"{name} is quantized and converted by {converter.operations}"
            continue
        place, _, parameter = to.rpartition(".")
        if to not in load.state:
            # The float model is unexpected there, too.
            continue
        elif parameter != "weight" or not isinstance(modules[place], nn.Linear):
            yield f"{name} is quantized, and to the model {type(modules[place]).__name__}"
        else:
            expected[place] = what["bits"]
    config = plan["quantization_config"]
    found = {}
    for group in config["config_groups"].values():
        for name, module in layers.items():
            if not is_match(name, module, group["targets"], config["ignore"]):
                continue
            if found.setdefault(name, group["weights"]["num_bits"]) != group["weights"]["num_bits"]:
                yield f"{name} is matched by two groups"
    for name in sorted(set(expected) | set(found)):
        # Another class may lack the weight of the float model, too.
        if (whole or name in loaded) and expected.get(name) != found.get(name):
            yield f"{name} has {expected.get(name)} bits, the groups give it {found.get(name)}"
    if whole:
        for name, module in layers.items():
            if isinstance(module, nn.Linear) and name not in found:
                if not is_match(name, module, config["ignore"]):
                    yield f"{name} is neither quantized nor ignored"


def first_line(error):
    return str(error).strip().split("\n")[0][:160]


def check(program, model_type, names):
    """What is found of one model type."""
    result = dict(types=1, classes=0, tensors=0, quantized=0, wrong={}, refused={}, not_built={})
    models = {}
    for name in names:
        try:
            model = build(model_type, name)
            models[name] = model, Loading(model)
        except Exception as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            result["not_built"][f"{model_type}: {name}"] = why
    base = next(iter(models), None)
    for name, (model, load) in models.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            try:
                tensors = saved(model)
                write(model, tensors, folder)
            except Exception as error:
                result["not_built"][f"{model_type}: {name}: saved"] = first_line(error)
                continue
            lost = [n for n in tensors if load.place(n)[0] not in load.state]
            if lost:
                found = f"transformers saves names that it does not load, such as {lost[0]}"
                result["not_built"][f"{model_type}: {name}: saved"] = found
                continue
            result["classes"] += 1
            plan, refused = dry_run(program, folder, "--bits", "4")
            plans = {"4 bits": plan}
            if plan is not None:
                (folder / "plan.json").write_text(json.dumps(mixed(plan)))
                plans["a plan"], refused = dry_run(
                    program, folder, "--bits-from", folder / "plan.json"
                )
            if refused is not None:
                result["refused"][f"{model_type}: {name}"] = refused[:300]
        openers = {n: models[n] for n in (name, base)}
        if name == base:
            openers |= dict(list(models.items())[1:3])
        for how, plan in plans.items():
            if plan is None:
                continue
            if how == "4 bits":
                result["quantized"] += sum("bits" in t for t in plan["tensors"].values())
                result["tensors"] += len(plan["tensors"])
            for opener, other in openers.items():
                wrong = list(opened(*other, plan, opener == name))
                if wrong:
                    key = f"{model_type}: {name} opened as {opener}, {how}"
                    result["wrong"][key] = wrong[:5]
    return result


def check_one(arguments):
    return arguments[1], check(*arguments)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("types", nargs="*")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    a = parser.parse_args()
    chosen = {t: names for t, names in classes().items() if not a.types or t in a.types}
    unknown = set(a.types) - set(chosen)
    if unknown:
        parser.error(f"transformers has no model type {', '.join(sorted(unknown))}")
    result = None
    # A process that has built fifty types has imported much: a new one has that memory back.
    pool = multiprocessing.get_context("fork").Pool(a.jobs, maxtasksperchild=50)
    with pool:
        tasks = [(a.program, *one) for one in chosen.items()]
        for done, (model_type, found) in enumerate(pool.imap_unordered(check_one, tasks), 1):
            wrong = len(found["wrong"])
            progress = f"{done} of {len(tasks)}: {model_type}: {wrong} wrong"
            print(progress, file=sys.stderr, flush=True)
            if result is None:
                result = found
                continue
            for key, value in found.items():
                result[key] = (
                    result[key] | value if isinstance(value, dict) else result[key] + value
                )
    (a.output or Path("/dev/stdout")).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
