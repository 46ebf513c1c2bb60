"""All models of transformers, built on the meta device: modules and shapes without memory."""

import os
import re
import sys
import warnings
from types import SimpleNamespace

# A PyTorch made for CUDA finds on a machine without it all that a CPU needs, once it asks lazily.
sys.setdlopenflags(os.RTLD_LAZY)
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")

import torch
import transformers
from torch import nn
from transformers import core_model_loading as loading
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.models.auto import configuration_auto, modeling_auto
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION as REPLACED
from transformers.quantizers.quantizer_compressed_tensors import CompressedTensorsHfQuantizer


def _full_attention(config):
    config.layer_types = ["full_attention"] * config.num_hidden_layers


def _sub(name, **values):
    def change(config):
        for key, value in values.items():
            setattr(getattr(config, name), key, value)

    return change


def _set(**values):
    def change(config):
        for key, value in values.items():
            setattr(config, key, value)

    return change


# What a configuration needs beside its defaults to give a model.
NEEDS = {
    "autoformer": dict(prediction_length=4),
    "informer": dict(prediction_length=4),
    "time_series_transformer": dict(prediction_length=4),
    "dots1": dict(n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1),
    "esm": dict(vocab_size=33),
    "hiera": dict(decoder_hidden_size=64),
    "hunyuan_v1_dense": dict(head_dim=64),
    "hunyuan_v1_moe": dict(head_dim=64),
    "hunyuan_vl_text": dict(head_dim=64),
    "ministral": dict(head_dim=128),
    "nemotron": dict(num_key_value_heads=8, head_dim=128),
    "reformer": dict(is_decoder=True),
    "wav2vec2-bert": dict(vocab_size=32),
    "wav2vec2-conformer": dict(vocab_size=32),
    "chameleon": dict(vocabulary_map={"<image>": 3}),
    "emu3": dict(vocabulary_map={"<image>": 3}),
}
# What it needs that cannot be given when it is made.
CHANGES = {
    "dbrx": _sub("attn_config", rope_theta=10000.0),
    "lfm2_moe": _full_attention,
    "cohere_compass_text": _full_attention,
    "hunyuan_vl": _sub("text_config", head_dim=64),
    "aya_vision": _sub("vision_config", num_attention_heads=16),
    "convnext": _set(out_features=["stage4"]),
}


def classes():
    """The names of the classes of each model type, the base model's first."""
    found = {model_type: [] for model_type in configuration_auto.CONFIG_MAPPING_NAMES}
    for name, mapping in vars(modeling_auto).items():
        if not (name.startswith("MODEL_") and name.endswith("_MAPPING_NAMES")):
            continue
        for model_type, of_type in mapping.items():
            for one in [of_type] if isinstance(of_type, str) else of_type:
                if one not in found.setdefault(model_type, []):
                    found[model_type].append(one)
    return {model_type: of_type for model_type, of_type in found.items() if of_type}


# Eight experts are as good as hundreds.
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")


def _with_few_experts(config):
    for name, value in list(vars(config).items()):
        if isinstance(value, transformers.PretrainedConfig):
            _with_few_experts(value)
        elif name in EXPERTS and isinstance(value, int) and value > 8:
            setattr(config, name, 8)


def configuration(model_type):
    config = configuration_auto.CONFIG_MAPPING[model_type](**NEEDS.get(model_type, {}))
    CHANGES.get(model_type, lambda _: None)(config)
    _with_few_experts(config)
    return config


def build(model_type, name):
    """A model on the meta device. The class may want the configuration of a part."""
    cls = getattr(transformers, name)
    config = configuration(model_type)
    wanted = cls.config_class
    if wanted is not None and not isinstance(config, wanted):
        parts = [v for v in vars(config).values() if isinstance(v, wanted)]
        config = parts[0] if parts else config
    with torch.device("meta"):
        return cls._from_config(config) if hasattr(cls, "_from_config") else cls(config)


def saved(model):
    """The names and tensors that `save_pretrained` writes."""
    tied = model.all_tied_weights_keys
    state = {name: value for name, value in model.state_dict().items() if name not in tied}
    return loading.revert_weight_conversion(model, state)


class Loading:
    """How transformers loads a file's tensors into a model."""

    def __init__(self, model):
        mapping = get_model_conversion_mapping(model)
        self.renamings = [e for e in mapping if isinstance(e, loading.WeightRenaming)]
        self.converters = [e for e in mapping if isinstance(e, loading.WeightConverter)]
        self.by_pattern = {p: c for c in self.converters for p in c.source_patterns}
        self.state = model.state_dict()
        self.prefix = model.base_model_prefix

    def place(self, name):
        """The parameter that a tensor of the file goes to, and the converter that it goes through."""
        to, pattern = loading.rename_source_key(
            name, self.renamings, self.converters, self.prefix, self.state
        )
        if to not in self.state and name in self.state:
            to, pattern = loading.rename_source_key(name, [], [], self.prefix, self.state)
        return to, None if pattern is None else self.by_pattern[pattern]

    def keeps_parts(self, name):
        """Whether the parts of a quantized weight are renamed as the weight is."""

        def renamed(name):
            name = loading.apply_renamings(name, self.renamings)
            return loading.apply_converters(name, self.converters)

        to, _ = renamed(name)
        parts = ("_packed", "_scale", "_shape", "_zero_point")
        return all(renamed(name + part) == (to + part, None) for part in parts)


def unopenable(model):
    """Why transformers cannot load any quantized weight into a model of this class, if so: the quantizer
    replaces modules by others, whose weights no file of the float model has, and it adds the parts of weights
    to the model's conversions, of which some do not take them."""
    replaced = {type(module).__name__ for module in model.modules()} & set(REPLACED)
    if replaced:
        return f"{min(replaced)} is replaced"
    quantizer = CompressedTensorsHfQuantizer.__new__(CompressedTensorsHfQuantizer)
    quantizer.pre_quantized, quantizer.use_fp8_kernel = True, False
    quantizer.quantization_config = SimpleNamespace(dequantize=False)
    try:
        get_model_conversion_mapping(model, hf_quantizer=quantizer)
    except ValueError as error:
        return str(error)
    return None


class _Absent:
    """Linear layers without a weight, as they are while packed ones are loaded, that say who asks for it."""

    def __enter__(self):
        self.asked = None

        def getattr_(module, name):
            if name == "weight":
                self.asked = module
            return nn.Module.__getattr__(module, name)

        nn.Linear.__getattr__ = getattr_
        return self

    def __exit__(self, *_):
        del nn.Linear.__getattr__


def initialized_by_others(model):
    """The linear layers whose weight other modules initialize, even where it has been loaded: they are to have
    one, packed or not. The model is of no use afterwards."""
    names = {
        module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    weights = {module: module._parameters.pop("weight") for module in names}
    found = set()

    def visit(module, owner):
        for child in module.children():
            visit(child, child if isinstance(child, transformers.PreTrainedModel) else owner)
        while True:
            absent.asked = None
            try:
                with torch.no_grad(), torch.device("meta"):
                    owner._init_weights(module)
                return
            except AttributeError:
                asked = absent.asked
                if asked is None or asked not in weights:
                    return
                found.add(names[asked])
                asked._parameters["weight"] = weights.pop(asked)
            except Exception:
                return

    with _Absent() as absent:
        visit(model, model)
    return found


def linear_layers(model):
    return {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def tied_layers(model):
    """The linear layers that share their weight with another module: by default, and those that
    would if the configuration asked for it."""
    layers = linear_layers(model)

    def of(tied):
        names = set(tied) | set(tied.values())
        return {n.removesuffix(".weight") for n in names} & layers

    now = of(model.all_tied_weights_keys)
    for module in model.modules():
        if hasattr(module, "config") and hasattr(module.config, "tie_word_embeddings"):
            module.config.tie_word_embeddings = True
    try:
        then = of(model.get_expanded_tied_weights_keys(all_submodels=True))
    except (ValueError, AttributeError):
        then = set()
    return now, then - now


def what(module):
    """What a module that is no linear layer is."""
    match module:
        case nn.Embedding():
            return "an embedding"
        case Conv1D():
            return "a transposed layer (Conv1D)"
        case _:
            return f"a parameter of {type(module).__name__}"


def template(name):
    """The name with # for each number."""
    return ".".join("#" if part.isdigit() else part for part in name.split("."))
