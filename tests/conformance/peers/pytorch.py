"""PyTorch: observers, quantize_per_tensor and quantize_per_channel, and fake_quantize."""

import numpy as np
import torch
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

from inputs import BF16, F16, F32, F64, Kinds, along, channel, hurt, scales, zero_points

torch.set_num_threads(1)


def to_torch(a):
    a = np.ascontiguousarray(a)
    return torch.from_numpy(a.view("u2")).view(torch.bfloat16) if a.dtype == BF16 else torch.from_numpy(a)


def from_torch(t):
    t = t.detach().contiguous()
    return t.view(torch.uint16).numpy().view(BF16) if t.dtype == torch.bfloat16 else t.numpy()


def observe(x, dtype, symmetric, axis, bounds=None):
    """The scale and the zero point that PyTorch's observers give."""
    options = dict(dtype=dtype)
    if bounds is not None:
        options |= dict(quant_min=bounds[0], quant_max=bounds[1])
    if axis is None:
        scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
        observer = MinMaxObserver(qscheme=scheme, **options)
    else:
        scheme = torch.per_channel_symmetric if symmetric else torch.per_channel_affine
        observer = PerChannelMinMaxObserver(ch_axis=axis, qscheme=scheme, **options)
    observer(to_torch(x))
    s, z = observer.calculate_qparams()
    return s.numpy(), z.long().numpy()


def quantize(x, s, z, axis, dtype):
    if axis is None:
        q = torch.quantize_per_tensor(to_torch(x), float(s[0]), int(z[0]), dtype)
    else:
        q = torch.quantize_per_channel(to_torch(x), to_torch(s.astype(F64)), to_torch(z.astype("i8")), axis, dtype)
    return dict(codes=from_torch(q.int_repr()), dequantized=from_torch(q.dequantize()))


def make_torch(cases, rng):
    """NaN is left out: its code is 255, 127 or 0, whichever kernel runs."""
    kinds = Kinds(cases, rng)
    for dtype, bounds in ((torch.quint8, (0, 255)), (torch.qint8, (-128, 127))):
        for symmetric in (False, True):
            for axis in (None, 0, 1):
                for _ in cases.rounds(4):
                    d = kinds.next(F32, axis)
                    s, z = observe(d, dtype, symmetric, axis)
                    x = hurt(along(s, axis), along(z, axis), bounds, F32, rng, cases.shape(axis, 108), infinities=True)
                    cases.add(x, s, z, data=d, **quantize(x, s, z, axis, dtype), bits=8, symmetric=symmetric,
                              bounds=bounds, groups=channel(axis))
        for s in scales(F32, rng, 7):
            for z in zero_points(*bounds)[:: 1 + int(s > 1)]:
                s1, z1 = np.array([s]), np.array([z])
                settings = dict(bits=8, symmetric=False, bounds=bounds)
                x = hurt(s, z, bounds, F32, rng, cases.shape(None, 100), infinities=True)
                cases.add(x, s1, z1, **quantize(x, s1, z1, None, dtype), **settings)
                if z == bounds[1]:
                    s2, z2 = np.array([s, s * F32.type(0.75)], F32), np.array([z, 3])
                    x = hurt(s2, z2, bounds, F32, rng, (cases.shape(None, 54)[0], 2), infinities=True)
                    cases.add(x, s2, z2, groups=("channel", 1), **quantize(x, s2, z2, 1, dtype), **settings)


def fake_quantize(x, s, z, axis, bounds):
    s, z = to_torch(s.astype(F32)), to_torch(z.astype("i4"))
    if axis is None:
        y = torch.fake_quantize_per_tensor_affine(to_torch(x), s, z, *bounds)
    else:
        y = torch.fake_quantize_per_channel_affine(to_torch(x), s, z, axis, *bounds)
    return dict(fake_quantized=from_torch(y))


FAKE_RANGES = [
    (torch.quint8, None, 8, (0, 255)), (torch.qint8, None, 8, (-128, 127)), (torch.qint8, (-127, 127), 8, (-127, 127)),
    (torch.quint8, (0, 15), 4, (0, 15)), (torch.qint8, (-8, 7), 4, (-8, 7)), (torch.qint8, (-2, 1), 2, (-2, 1)),
    (torch.int16, None, 16, (-32768, 32767)), (torch.uint16, None, 16, (0, 65535)), (torch.quint8, (0, 127), 7, (0, 127)),
]


def fake_floats(cases, bounds):
    """The element types; f64, whose vectors are large, with some of the ranges."""
    return (F32, F16, BF16, F64) if cases.live or bounds in ((0, 255), (-8, 7), (0, 65535)) else (F32, F16, BF16)


def make_torch_fake(cases, rng):
    """Per channel |x/s| from 2^63 on is left out, which becomes qmin."""
    kinds = Kinds(cases, rng)
    for dtype, custom, bits, bounds in FAKE_RANGES:
        for symmetric in (False, True):
            for axis in (None, 0, 1):
                for dt in fake_floats(cases, bounds):
                    for _ in cases.rounds(1):
                        d = kinds.next(dt, axis)
                        s, z = observe(d, dtype, symmetric, axis, custom)
                        limits = dict(infinities=True) if axis is None else dict(limit=2.0**62)
                        x = hurt(along(s, axis), along(z, axis), bounds, dt, rng, cases.shape(axis, 84), **limits)
                        cases.add(x, s, z, data=d, **fake_quantize(x, s, z, axis, bounds), bits=bits, symmetric=symmetric,
                                  bounds=bounds, groups=channel(axis))
        for dt in fake_floats(cases, bounds):
            for s in scales(dt, rng, 3, far=dt == F32):
                z = rng.choice(zero_points(*bounds))
                s1, z1 = np.array([s], F32), np.array([z])
                x = hurt(s, z, bounds, dt, rng, cases.shape(None, 70), infinities=True)
                cases.add(x, s1, z1, **fake_quantize(x, s1, z1, None, bounds), bits=bits, symmetric=False, bounds=bounds)
