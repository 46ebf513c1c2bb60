"""What transformers says of the models that chopi-models runs.

`vectors FOLDER` writes small models with random weights, a folder each, with the logits or hidden states of a
few tokens. `reference DECODER TEXT ENCODER` prints a JSON object: the perplexity of the text and the greedy
continuations of prompts by the decoder, and the encoder's embeddings of sentences.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

# A PyTorch made for CUDA finds on a machine without it all that a CPU needs, once it asks lazily.
sys.setdlopenflags(os.RTLD_LAZY)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):\n",
    "The three primary colours are",
    "To make a good cup of tea, you",
    "In 1969, the first man",
    "Water boils at a temperature of",
    "My favourite book is Moby Dick, because",
    "Q: What is the largest planet?\nA:",
    "Dear Sir or Madam,\n\nI am writing to",
]

SENTENCES = [
    "A cat sat by the window and watched the snow fall.",
    "How do I reset the password of my e-mail account?",
    "Quantization stores the weights of a network in fewer bits.",
    "She bought two kilos of apples, some bread and a bottle of milk.",
    "Yes.",
    "Astronomers found a planet that orbits two stars. " * 40,
    "Die Katze sitzt auf dem Dach; déjà vu, naïve café — 東京!",
    "The expedition reached the summit shortly before dawn.",
]

VOCABULARY, LAYERS = 32, 2
DECODER = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
ENCODER = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    max_position_embeddings=32,
)
# A name, the class, and what its configuration says.
SMALL = [
    ("llama", "Llama", dict(DECODER, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3)),
    (
        "llama-tied",
        "Llama",
        dict(
            DECODER,
            tie_word_embeddings=True,
            hidden_act="gelu",
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0),
        ),
    ),
    ("mistral", "Mistral", dict(DECODER, sliding_window=5)),
    (
        "qwen2",
        "Qwen2",
        dict(DECODER, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    ),
    ("qwen3", "Qwen3", dict(DECODER, head_dim=8, tie_word_embeddings=True)),
    ("bert", "Bert", dict(ENCODER)),
    ("roberta", "Roberta", dict(ENCODER, type_vocab_size=1, hidden_act="gelu_new")),
]


def vectors(folder):
    """Writes the small models."""
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for seed, (name, family, values) in enumerate(SMALL):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{family}Config")(eos_token_id=1, bos_token_id=2, **values)
        decoder = config.num_attention_heads and "num_key_value_heads" in values
        cls = getattr(transformers, f"{family}ForCausalLM" if decoder else f"{family}Model")
        how = {} if decoder else dict(add_pooling_layer=False)
        model = cls(config, **how).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                norm = "norm" in parameter_name.lower() and parameter_name.endswith("weight")
                noise = torch.randn_like(parameter)
                parameter.copy_(1 + 0.2 * noise if norm else 0.4 * noise)
            tokens = torch.randint(2, VOCABULARY, (1, 20))
            output = model(input_ids=tokens)
        output = output.logits if decoder else output.last_hidden_state
        target = folder / name
        model.save_pretrained(target)
        tokenizer.save(str(target / "tokenizer.json"))
        (target / "generation_config.json").unlink(missing_ok=True)
        os.chmod(target / "model.safetensors", 0o644)
        tensors = dict(tokens=tokens[0].to(torch.uint32), output=output[0].contiguous())
        save_file(tensors, target / "vectors.st")


def reference(args):
    """What a real decoder and a real encoder say."""
    tokenizer = AutoTokenizer.from_pretrained(args.decoder)
    model = AutoModelForCausalLM.from_pretrained(args.decoder, dtype=torch.float32).eval()
    window, windows = 512, 6
    tokens = tokenizer(args.text.read_text())["input_ids"][: window * windows]
    loss, continuations = 0.0, []
    with torch.no_grad():
        for first in range(0, window * windows, window):
            part = torch.tensor([tokens[first : first + window]])
            logits = model(part).logits[0, :-1].double()
            loss += torch.nn.functional.cross_entropy(logits, part[0, 1:], reduction="sum").item()
        for prompt in PROMPTS:
            inputs = tokenizer(prompt, return_tensors="pt")
            output = model.generate(**inputs, max_new_tokens=32, do_sample=False)[0]
            output = output[inputs["input_ids"].shape[1] :].tolist()
            if output[-1] == model.generation_config.eos_token_id:
                output.pop()
            continuations.append(dict(prompt=prompt, tokens=output))

    tokenizer = AutoTokenizer.from_pretrained(args.encoder)
    model = AutoModel.from_pretrained(args.encoder, dtype=torch.float32).eval()
    embeddings = []
    with torch.no_grad():
        for sentence in SENTENCES:
            # As max_seq_length of sentence_bert_config.json says.
            inputs = tokenizer(sentence, return_tensors="pt", truncation=True, max_length=256)
            mean = model(**inputs).last_hidden_state[0].mean(0)
            embeddings.append(dict(text=sentence, embedding=(mean / mean.norm()).tolist()))
    perplexity = math.exp(loss / (windows * (window - 1)))
    print(json.dumps(dict(perplexity=perplexity, continuations=continuations, embeddings=embeddings)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("vectors")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=lambda args: vectors(args.folder))
    command = commands.add_parser("reference")
    command.add_argument("decoder", type=Path)
    command.add_argument("text", type=Path)
    command.add_argument("encoder", type=Path)
    command.set_defaults(run=reference)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
