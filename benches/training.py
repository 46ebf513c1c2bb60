"""What quantization costs a training step in PyTorch: the network, batch and bits of training.rs,
torch.ao's eager-mode QAT, as a ratio to the same step in float.

    pip install torch==2.13.0
    python benches/training.py

The steps take turns and the medians are compared, on one thread.
"""

import statistics
import time

import torch
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    QuantWrapper,
    prepare_qat,
)

BATCH, WIDTHS, WARM_UP, ROUNDS = 256, [512, 512, 512, 10], 10, 100


def qconfig(fake_quantize):
    """Weights per channel, symmetric; activations per tensor, asymmetric."""
    return QConfig(
        activation=fake_quantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        ),
        weight=fake_quantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        ),
    )


def network():
    layers = []
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def quantized(fake_quantize):
    """Fake-quantizes the input of the network, weights, and what ReLU gives; not the logits."""
    model = network()
    for name, layer in model.named_children():
        if isinstance(layer, torch.nn.ReLU):
            layer.qconfig = qconfig(fake_quantize)
        else:
            weights = qconfig(fake_quantize).weight
            layer.qconfig = QConfig(activation=torch.nn.Identity, weight=weights)
    model = QuantWrapper(model)
    model.quant.qconfig = qconfig(fake_quantize)
    return prepare_qat(model.train())


torch.set_num_threads(1)
models = {
    "float": network(),
    "FakeQuantize": quantized(FakeQuantize),
    "fused": quantized(FusedMovingAvgObsFakeQuantize),
}
x, y = torch.rand(BATCH, WIDTHS[0]), torch.arange(BATCH) % 10
adams = {name: torch.optim.Adam(model.parameters(), lr=1e-3) for name, model in models.items()}
times = {name: [] for name in models}
for _ in range(WARM_UP + ROUNDS):
    for name, model in models.items():
        start = time.perf_counter()
        adams[name].zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        adams[name].step()
        times[name].append(time.perf_counter() - start)
medians = {name: statistics.median(t[WARM_UP:]) for name, t in times.items()}
for name, median in medians.items():
    print(f"{name:12} {median * 1e3:6.2f} ms, {median / medians['float']:.2f} x float")
