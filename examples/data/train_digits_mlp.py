"""Trains the 64-64-10 network of digits_mlp.safetensors in NumPy.

Run beside digits.safetensors, with numpy and safetensors installed: python train_digits_mlp.py
"""

import numpy as np
from safetensors.numpy import load_file, save_file

data = load_file("digits.safetensors")
x = data["images"].reshape(-1, 64).astype(np.float32) / 16
y = data["labels"].astype(np.int64)
train, test = slice(0, 1297), slice(1297, None)

rng = np.random.default_rng(0)
names = ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
shapes = [(64, 64), (64,), (10, 64), (10,)]
p = [rng.uniform(-1, 1, s).astype(np.float32) / 8 for s in shapes]
m, v, step = [0 * w for w in p], [0 * w for w in p], 0

for epoch in range(60):
    order = rng.permutation(1297)
    for start in range(0, 1297, 64):
        xb, yb = x[order[start : start + 64]], y[order[start : start + 64]]
        h = np.maximum(xb @ p[0].T + p[1], 0)
        z = h @ p[2].T + p[3]
        e = np.exp(z - z.max(1, keepdims=True))
        d = e / e.sum(1, keepdims=True)
        d[np.arange(len(yb)), yb] -= 1
        d /= len(yb)
        dh = (d @ p[2]) * (h > 0)
        step += 1
        for i, g in enumerate([dh.T @ xb, dh.sum(0), d.T @ h, d.sum(0)]):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            mean, square = m[i] / (1 - 0.9**step), v[i] / (1 - 0.999**step)
            p[i] = (p[i] - 3e-3 * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)

z = np.maximum(x[test] @ p[0].T + p[1], 0) @ p[2].T + p[3]
print("test accuracy", (z.argmax(1) == y[test]).mean())
save_file(dict(zip(names, p)), "digits_mlp.safetensors")
