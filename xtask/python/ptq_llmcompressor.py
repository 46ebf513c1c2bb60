"""Quantizes the linear layers of a decoder with llmcompressor, on the first windows of a text, into a folder that
transformers opens, and prints a JSON object with the seconds and the peak of the memory in bytes.

The float model is in memory before the clock starts, and the folder is written after it has stopped.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

# A PyTorch made for CUDA finds on a machine without it all that a CPU needs, once it asks lazily.
sys.setdlopenflags(os.RTLD_LAZY)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from loguru import logger
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 512


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=["rtn", "gptq", "awq", "awq+gptq"], required=True)
    parser.add_argument("--mse", action="store_true", help="ranges of least squared error")
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--group", type=int, required=True, help="0 for a scale for each output")
    parser.add_argument("--asymmetric", action="store_true")
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logger.remove()

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokens = tokenizer(args.text.read_text(encoding="utf-8"))["input_ids"]
    windows = torch.tensor(tokens[: args.windows * TOKENS]).reshape(args.windows, TOKENS)
    rows = [dict(input_ids=row, attention_mask=torch.ones_like(row)) for row in windows]

    weights = dict(
        num_bits=args.bits,
        type="int",
        symmetric=not args.asymmetric,
        strategy="group" if args.group else "channel",
        observer="memoryless_mse" if args.mse else "memoryless_minmax",
    )
    if args.group:
        weights["group_size"] = args.group
    groups = {"group_0": dict(targets=["Linear"], weights=weights)}
    settings = dict(config_groups=groups, ignore=["lm_head"])
    rounding = GPTQModifier if "gptq" in args.method else QuantizationModifier
    recipe = [AWQModifier()] if "awq" in args.method else []
    recipe.append(rounding(**settings))

    peak = start_of_peak()
    start = time.perf_counter()
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=DataLoader(rows),
        recipe=recipe,
        num_calibration_samples=args.windows,
        max_seq_length=TOKENS,
        shuffle_calibration_samples=False,
    )
    seconds = time.perf_counter() - start
    peak = peak()
    model.save_pretrained(args.folder, save_compressed=True)
    tokenizer.save_pretrained(args.folder)
    print(json.dumps(dict(seconds=seconds, peak_bytes=peak)))


def start_of_peak():
    """Starts to watch the memory; what it returns gives the most since, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    return lambda: 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])


if __name__ == "__main__":
    main()
