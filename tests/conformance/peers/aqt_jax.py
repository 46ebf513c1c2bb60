"""AQT on JAX."""

import jax
import jax.numpy as jnp
import numpy as np
from aqt.jax.v2 import aqt_quantizer, aqt_tensor

from inputs import BF16, F16, F32, F64, Kinds, channel, hurt, scales


def jitted(quantizer, axes):
    def run(x):
        q = quantizer.quant(x, calibration_axes=axes)[0]
        return q.qvalue, q.scale[0], q.dequant()

    return jax.jit(run)


def make_aqt(cases, rng):
    """Jitted. Left out: data whose scale is subnormal, or so small that subnormal values have codes, or
    so large that its reciprocal is subnormal: XLA flushes those to zero."""
    kinds = Kinds(cases, rng)
    for bits in (8, 4, 2, 3, 5, 6, 7):
        edge = 2 ** (bits - 1) - 1
        quantizer = aqt_quantizer.quantizer_make(bits)
        for axes, axis in (((0, 1), None), ((1,), 0), ((0,), 1)):
            run = jitted(quantizer, axes)
            for dt in (F32, F16, BF16):
                for _ in cases.rounds(2 + 2 * (bits == 8)):
                    # Each group's largest absolute value, and values in between at ties.
                    d = kinds.next(dt)
                    rows, columns = cases.shape(0, 80)
                    most = np.abs(d.astype(F64)).max(None if axis is None else 1, keepdims=True)
                    s = np.where(most > 0, most, 1) / (edge + 0.5)
                    x = hurt(s, 0, (-edge, edge), dt, rng, (rows, columns))
                    x[np.abs(x.astype(F64)) > most] = 0
                    x[:, 0] = most.astype(dt).ravel() * rng.choice([-1, 1], rows).astype(dt)
                    x = rng.permuted(x.view(f"u{dt.itemsize}"), axis=1).view(dt)
                    x = np.ascontiguousarray(x.T) if axis == 1 else x
                    q, s, y = (np.asarray(a) for a in run(jnp.asarray(x)))
                    settings = dict(bits=bits, symmetric=True, bounds=(-edge, edge), groups=channel(axis))
                    if dt != F16 and ((s.astype(F64) < 1e-30).any() or (s.astype(F64) > 1e37).any()):
                        continue
                    cases.add(x, s.ravel(), np.zeros(1), data=x, codes=q, dequantized=y, **settings)
        for s in scales(F32, rng, 5):
            if not 1e-30 <= s <= 1e36:
                continue
            x = hurt(s, 0, (-edge - 3, edge + 3), F32, rng, cases.shape(None, 84), infinities=True)
            q = aqt_tensor.QTensor(qvalue=None, scale=[jnp.full((1,), s, jnp.float32)], scale_t=None, bias=[], dequant_dtype=jnp.float32)
            q = quantizer.calculate_qvalue(jnp.asarray(x), q)[0]
            cases.add(x, [s], [0], codes=np.asarray(q.qvalue), dequantized=np.asarray(q.dequant()), bits=bits, symmetric=True,
                      bounds=(-edge, edge))
