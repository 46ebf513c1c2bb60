"""Writes a GGUF model, with its weights dequantized, as the folder that transformers saves: config.json,
model.safetensors in f32, and the tokenizer."""

import argparse
import os
import sys
from pathlib import Path

# A PyTorch made for CUDA finds on a machine without it all that a CPU needs, once it asks lazily.
sys.setdlopenflags(os.RTLD_LAZY)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()

    source = dict(pretrained_model_name_or_path=args.gguf.parent, gguf_file=args.gguf.name)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The weights are floats by now, which transformers would deny.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(args.folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(args.folder)


if __name__ == "__main__":
    main()
