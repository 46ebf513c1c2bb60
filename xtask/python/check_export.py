"""Opens quantized models with transformers, and compares their tensors with compressed-tensors' own.

Input: the float model's folder and a folder of quantized models. Output: a JSON object with, for
each of them, how many tensors and values were compared, how many values differ from what
compressed-tensors makes of the same scheme (only where the observer is min/max: the ranges of others
are chopi's own), how many weights have how many bits, and the cosine of the sentence embeddings to those of
the float model.
"""

import argparse
import json
import os
import sys
from pathlib import Path

# A PyTorch made for CUDA finds on a machine without it all that a CPU needs, once it asks lazily.
sys.setdlopenflags(os.RTLD_LAZY)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_model_format
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.quantization.utils import calculate_qparams
from compressed_tensors.utils.match import match_name
from safetensors import safe_open
from transformers import AutoModel, AutoTokenizer, CompressedTensorsConfig

SENTENCES = (Path(__file__).parent / "sentences.txt").read_text().splitlines()


def load(folder, dequantize=False):
    """The model, and the tensors that transformers did not find in the folder or had no place for."""
    how = {}
    if dequantize:
        how = dict(quantization_config=CompressedTensorsConfig(dequantize=True))
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True, **how)
    return model.eval(), set(info["missing_keys"]) | set(info["unexpected_keys"])


def embeddings(model, tokenizer):
    """The mean of the last hidden states of each sentence's tokens."""
    batch = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def loads(folder):
    """Whether transformers 5.23 loads the scheme without dequantizing it at once: it expects zero points
    that are not packed, where compressed-tensors packs them."""
    schemes = quantization(folder).config_groups.values()
    packed = (s.format == "pack-quantized" and s.weights.strategy != "tensor" for s in schemes)
    symmetric = (s.weights.symmetric for s in schemes)
    return all(s or not p for s, p in zip(symmetric, packed))


def quantization(folder):
    config = json.loads((folder / "config.json").read_text())
    return QuantizationConfig.model_validate(config["quantization_config"])


def scheme_of(module, folder):
    """The scheme of the group that names a module."""
    for scheme in quantization(folder).config_groups.values():
        if any(match_name(module, target) for target in scheme.targets):
            return scheme
    raise ValueError(f"no group is for {module}")


def tensors(folder):
    found = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found.update({name: opened.get_tensor(name) for name in opened.keys()})
    return found


def expected(weight, scheme, like):
    """What compressed-tensors makes of a weight. The observers of compressed-tensors' users give it
    the smallest and the largest value of each group."""
    args = scheme.weights
    if args.strategy == "tensor":
        groups = weight.reshape(1, -1)
    elif args.strategy == "channel":
        groups = weight
    else:
        groups = weight.unflatten(-1, (-1, args.group_size))
    low, high = groups.amin(-1), groups.amax(-1)
    if args.strategy == "channel":
        low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    scale, zero_point = calculate_qparams(low, high, args)
    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    state = dict(weight=weight, weight_scale=scale, weight_zero_point=zero_point)
    return compressor.compress(state, scheme)


def differing(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return max(a.numel(), b.numel(), 1)
    # A clone has the strides of its shape even where an axis has length 1.
    a, b = (x.clone(memory_format=torch.contiguous_format).flatten() for x in (a, b))
    return int((a.view(torch.uint8) != b.view(torch.uint8)).sum())


def dequantized(model, folder):
    """How many weights of a model that was dequantized on loading were quantized in the folder, and how many of
    them differ from what compressed-tensors makes of the folder's tensors."""
    actual, count, wrong = tensors(folder), 0, 0
    for name, weight in model.state_dict().items():
        module = name.removesuffix(".weight")
        if f"{name}_scale" not in actual:
            continue
        scheme = scheme_of(module, folder)
        names = {key.removeprefix(f"{module}."): key for key in actual}
        state = {part: actual[key] for part, key in names.items() if part.startswith("weight")}
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        theirs = compressor.decompress(state, scheme)["weight"]
        count += 1
        wrong += differing(theirs, weight) > 0
    return count, wrong


def compare(float_tensors, folder):
    ignored = quantization(folder).ignore
    actual = tensors(folder)
    result = dict(tensors=0, values=0, differing=0, bits={}, notes=[])

    def check(name, left, right):
        count = differing(left, right)
        result["values"] += left.numel()
        result["differing"] += count
        if count:
            result["notes"].append(f"{name}: {count} of {left.numel()} differ")

    seen = set()
    for name, tensor in float_tensors.items():
        module = name.removesuffix(".weight")
        parts = {key: key.removeprefix(f"{module}.") for key in actual}
        parts = {key: part for key, part in parts.items() if part != key and "." not in part}
        if f"{module}.weight_scale" not in actual or name == module or tensor.ndim != 2:
            if name not in actual:
                result["notes"].append(f"{name}: missing")
                continue
            seen.add(name)
            check(name, tensor, actual[name])
            continue
        if any(match_name(module, target) for target in ignored):
            result["notes"].append(f"{module}: quantized and ignored")
        scheme = scheme_of(module, folder)
        bits = scheme.weights.num_bits
        result["bits"][bits] = result["bits"].get(bits, 0) + 1
        result["tensors"] += 1
        ours = {part: actual[key] for key, part in parts.items() if part.startswith("weight")}
        seen.update(f"{module}.{part}" for part in ours)
        if scheme.weights.observer != "minmax":
            continue
        theirs = expected(tensor, scheme, ours)
        if set(ours) != set(theirs):
            result["notes"].append(f"{module}: {sorted(ours)}, expected {sorted(theirs)}")
        for part in set(ours) & set(theirs):
            check(f"{module}.{part}", theirs[part], ours[part])
    unknown = set(actual) - seen
    if unknown:
        result["notes"].append(f"unexpected tensors: {sorted(unknown)}")
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("quantized", type=Path)
    a = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model, _ = load(a.model)
    reference = embeddings(model, tokenizer)
    float_tensors = tensors(a.model)
    results = {}
    for folder in sorted(a.quantized.iterdir()):
        result = compare(float_tensors, folder)
        # Packed zero points are loaded by dequantizing.
        dequantize = not loads(folder)
        model, unmatched = load(folder, dequantize)
        if dequantize:
            count, wrong = dequantized(model, folder)
            if wrong or count != result["tensors"]:
                found = f"{count} weights are dequantized, {wrong} of them to other values"
                result["notes"].append(f"{found}, expected {result['tensors']} and 0")
        if unmatched:
            result["notes"].append(f"transformers has no match for {sorted(unmatched)}")
        if not dequantize:
            said, inferred = quantization(folder).format, infer_model_format(model).value
            if said != inferred:
                result["notes"].append(f"the format is {said}, to compressed-tensors {inferred}")
        cosine = torch.nn.functional.cosine_similarity(
            embeddings(model, tokenizer), reference, dim=-1
        )
        result |= dict(cosine=float(cosine.mean()), least_cosine=float(cosine.min()))
        results[folder.name] = result
    print(json.dumps(results))


if __name__ == "__main__":
    main()
