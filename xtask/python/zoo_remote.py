"""A model type that no table knows: its modules have names of their own."""

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.pytorch_utils import Conv1D


class TomorrowConfig(PreTrainedConfig):
    model_type = "of_tomorrow"

    vocab_size: int = 96
    width: int = 64
    layers: int = 2
    experts: int = 4
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    tie_word_embeddings: bool = False


class Chooser(nn.Module):
    """A router, whose weight is no linear layer's."""

    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(config.experts, config.width) * 0.02)

    def forward(self, x):
        return (x @ self.weight.T).softmax(-1)


class Experts(nn.Module):
    """All experts of a layer in one tensor: the first with rows of outputs, the second with rows of inputs."""

    def __init__(self, config):
        super().__init__()
        count, width = config.experts, config.width
        self.gate_up_proj = nn.Parameter(torch.randn(count, 2 * width, width) * 0.02)
        self.down_proj = nn.Parameter(torch.randn(count, width, width) * 0.02)

    def forward(self, x, weights):
        gate, up = torch.einsum("bsw,eow->bseo", x, self.gate_up_proj).chunk(2, -1)
        down = torch.einsum("bseo,eow->bsew", gate.sigmoid() * up, self.down_proj)
        return (down * weights.unsqueeze(-1)).sum(-2)


class Mixture(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.chooser = Chooser(config)
        self.switch = nn.Linear(config.width, config.experts, bias=False)
        self.experts = Experts(config)
        self.list = nn.ModuleList(
            [nn.Linear(config.width, config.width, bias=False) for _ in range(config.experts)]
        )

    def forward(self, x):
        weights = self.chooser(x) + self.switch(x).softmax(-1)
        listed = torch.stack([expert(x) for expert in self.list], -2)
        return self.experts(x, weights) + (listed * weights.unsqueeze(-1)).sum(-2)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.width
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width // 2)
        self.value = nn.Linear(width, width // 2, bias=False)
        self.widen = nn.Linear(width // 2, width)
        # Square, so that the length of its bias says nothing.
        self.c_mix = Conv1D(width, width)
        self.c_fc = Conv1D(2 * width, width)
        self.narrow = nn.Linear(2 * width, width)
        self.mixture = Mixture(config)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        y = self.norm(x)
        y = self.q_proj(y) + self.widen(self.k_proj(y).sigmoid() * self.value(y))
        x = x + self.c_mix(y)
        x = x + self.narrow(self.c_fc(self.norm(x)).relu())
        return x + self.mixture(self.norm(x))


class TomorrowPreTrainedModel(PreTrainedModel):
    config_class = TomorrowConfig
    base_model_prefix = "trunk"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)


class TomorrowModel(TomorrowPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.places = nn.Embedding(64, config.width)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, **_):
        places = torch.arange(input_ids.shape[-1], device=input_ids.device)
        x = self.words(input_ids) + self.places(places)
        for block in self.blocks:
            x = block(x)
        return BaseModelOutput(last_hidden_state=x)


class TomorrowForCausalLM(TomorrowPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"speaker.weight": "trunk.words.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.trunk = TomorrowModel(config)
        self.speaker = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.trunk.words

    def get_output_embeddings(self):
        return self.speaker

    def forward(self, input_ids, **_):
        return CausalLMOutput(logits=self.speaker(self.trunk(input_ids).last_hidden_state))
