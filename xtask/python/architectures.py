"""Makes the table of what is special in each architecture of transformers, which the program has built in.

Argument: the file to write, JSON as `crates/chopi-cli/src/architecture/table.rs` reads it.
"""

import json
import multiprocessing
import os
import sys
from collections import defaultdict
from pathlib import Path

from meta_models import (
    Loading,
    build,
    classes,
    initialized_by_others,
    linear_layers,
    nn,
    saved,
    template,
    tied_layers,
    transformers,
    unopenable,
    what,
)

WEIGHT = ".weight"


def last(name):
    """The last component of a module's name; a number with what it counts."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1] == "#" else parts[-1]


def in_base(name, prefixes):
    """The name without the prefix of the base model."""
    first, _, rest = name.partition(".")
    return rest if first in prefixes and rest else name


def aligned(file, module):
    """The templates of two names of one module, with # for the numbers that both have."""
    left, right = file.split("."), module.split(".")
    ours = [i for i, part in enumerate(left) if part.isdigit()]
    theirs = [i for i, part in enumerate(right) if part.isdigit()]
    while ours and theirs:
        if left[ours[0]] == right[theirs[0]]:
            left[ours.pop(0)] = right[theirs.pop(0)] = "#"
        elif len(ours) > len(theirs):
            ours.pop(0)
        else:
            theirs.pop(0)
    return ".".join(left), ".".join(right)


def rows_of(model):
    """Each matrix of a saved model: its module in the file, its module in the model, what it is."""
    load = Loading(model)
    modules = dict(model.named_modules())
    seen = set()
    for name, tensor in saved(model).items():
        file = template(name.removesuffix(WEIGHT))
        if tensor.dim() != 2 or not name.endswith(WEIGHT) or file in seen:
            continue
        seen.add(file)
        to, converter = load.place(name)
        if converter is not None:
            # The quantizer's part of the loading takes converters of weights alone for its own.
            own = all(s.endswith(WEIGHT) for s in converter._original_source_patterns)
            stacks = type(converter.operations[0]).__name__ == "MergeModulelist"
            yield file, None, "experts" if own and stacks else "lost" if own else "converted"
            continue
        place, _, parameter = to.rpartition(".")
        module = modules.get(place)
        if parameter == "weight" and isinstance(module, nn.Linear):
            if not load.keeps_parts(name):
                yield file, None, "converted"
                continue
            names = aligned(name.removesuffix(WEIGHT), place)
            if names[0] != file:
                # Its numbers mean something: each name has a row of its own.
                seen.discard(file)
            yield *names, "linear"
        elif to in load.state:
            yield file, None, what(module)


def rows_of_others(models, rows):
    """What the names that one class saves are in the other classes, which may be parts of it."""
    for saving, of_saving in rows.items():
        files = {file for file, _, kind in of_saving if kind == "linear"}
        modules = [name.removesuffix(WEIGHT) for name in saved(models[saving])]
        samples = {template(module): module for module in modules}
        for opening, model in models.items():
            if opening == saving:
                continue
            load, layers = Loading(model), linear_layers(model)
            for file in files:
                name = samples.get(file, file.replace("#", "0"))
                to, converter = load.place(name + WEIGHT)
                if converter is None and to in load.state and to.removesuffix(WEIGHT) in layers:
                    yield saving, *aligned(name, to.removesuffix(WEIGHT)), "linear"


def survey_one(model_type, names):
    """Rows, prefixes, tied layers, layers without a tensor of their own."""
    keys = ("rows", "prefixes", "tied", "may_tie", "implicit", "heads", "whole")
    entry = {key: set() for key in keys} | dict(unopenable=False)
    models, rows_by_class = {}, {}
    for name in names:
        try:
            model = build(model_type, name)
            rows = set(rows_of(model))
            # The surveyed model is of no use afterwards.
            models[name], rows_by_class[name] = build(model_type, name), rows
        except Exception as error:
            line = str(error).strip().split("\n")[0][:100]
            print(f"{model_type}: {name}: {type(error).__name__}: {line}", file=sys.stderr)
            continue
        prefix = model.base_model_prefix
        if prefix and hasattr(model, prefix):
            entry["prefixes"].add(prefix)
            heads = {template(name) for name in linear_layers(model)}
            entry["heads"] |= {name for name in heads if not name.startswith(f"{prefix}.")}
        entry["rows"] |= {(prefix, *row) for row in rows}
        plain = {template(module) for _, module, kind in rows if kind == "linear"}
        layers = {template(layer) for layer in linear_layers(model)}
        entry["implicit"] |= layers - plain
        for key, layers in zip(("tied", "may_tie"), tied_layers(model)):
            entry[key] |= {template(layer) for layer in layers}
        entry["unopenable"] |= unopenable(model) is not None
        whole = {template(layer) for layer in initialized_by_others(model)}
        of_linear = [(f, template(m)) for f, m, kind in rows if kind == "linear"]
        entry["whole"] |= {(prefix, template(f)) for f, m in of_linear if m in whole}
    for saving, *row in rows_of_others(models, rows_by_class):
        entry["rows"].add((models[saving].base_model_prefix, *row))
    return model_type, entry


def survey():
    """What `survey_one` finds, by model type."""
    found = {}
    jobs = len(os.sched_getaffinity(0))
    # A process that has built fifty types has imported much: a new one has that memory back.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=50) as pool:
        for model_type, entry in pool.starmap(survey_one, classes().items(), chunksize=1):
            if entry["rows"]:
                found[model_type] = entry
    return found


KINDS = ("experts", "converted", "lost")
# A word that says linear in this share of the architectures says so where nothing else is known.
MOSTLY = 0.9


def table(found):
    seen = defaultdict(lambda: defaultdict(set))
    for model_type, entry in found.items():
        for _, file, _, kind in entry["rows"]:
            seen[last(template(file))][kind].add(model_type)
    linear, other = set(), {}
    for word, kinds in seen.items():
        # What is converted on loading is listed by its whole name in any case.
        of_all = sum(len(types) for kind, types in kinds.items() if kind not in KINDS)
        if len(kinds["linear"]) >= MOSTLY * of_all:
            linear.add(word)
        elif not kinds["linear"] and not any(kinds[kind] for kind in KINDS):
            other[word] = max(sorted(kinds), key=lambda kind: len(kinds[kind]))
    types = {}
    for model_type, entry in sorted(found.items()):
        facts = defaultdict(set)
        others = defaultdict(set)
        renamed = defaultdict(set)
        for prefix, file, module, kind in entry["rows"]:
            name = template(file.removeprefix(f"{prefix}.") if prefix else file)
            if kind == "linear":
                renamed[file].add(module)
            if kind in KINDS:
                facts[kind].add(name)
            elif kind == "linear":
                if last(name) not in linear:
                    facts["linear"].add(name)
            elif last(name) not in other:
                others[kind].add(name)
        result = {key: sorted(value) for key, value in sorted(facts.items())}
        if others:
            result["other"] = {key: sorted(value) for key, value in sorted(others.items())}
        # A name in a file can be another one in each class, beside the prefix of the base model.
        prefixes = entry["prefixes"]
        renamed = {
            file: sorted(names)
            for file, names in sorted(renamed.items())
            if {in_base(name, prefixes) for name in names} != {in_base(file, prefixes)}
        }
        result["renamed"] = renamed
        whole = {f.removeprefix(f"{prefix}.") if prefix else f for prefix, f in entry["whole"]}
        if whole:
            result["whole"] = sorted(whole)
        result["prefixes"] = sorted(entry["prefixes"])
        for key in ("tied", "may_tie", "implicit", "heads"):
            # A layer is tied in one class and not in another where only the first one has it.
            names = {name for name in entry[key] if key != "may_tie" or name not in entry["tied"]}
            for prefix in entry["prefixes"]:
                names = {name.removeprefix(f"{prefix}.") for name in names}
            if names:
                result[key] = sorted(names)
        result["unopenable"] = entry["unopenable"]
        types[model_type] = {key: value for key, value in result.items() if value}
    first = {}
    for model_type, facts in types.items():
        text = json.dumps(facts, sort_keys=True)
        if len(text) > 80 and text in first:
            types[model_type] = {"same_as": first[text]}
        first.setdefault(text, model_type)
    version = transformers.__version__
    return dict(transformers=version, linear=sorted(linear), other=other, types=types)


def main():
    # Some models print when they are made.
    text = json.dumps(table(survey()), indent=1, sort_keys=True)
    Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
