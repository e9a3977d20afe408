"""A small convolutional network in numpy: forward, backward, Adam.

Three blocks of Conv 3x3, BatchNorm, ReLU (the first two followed by MaxPool 2x2) and one fully
connected layer with softmax. Enough to learn handwritten digits within a minute on one core.
"""

from __future__ import annotations

import numpy as np

EPS = 1e-5
MOMENTUM = 0.9
RATE = 2e-3
BATCH = 64


def _windows(x):
    """3x3 neighbourhoods of x [N, C, H, W], zero-padded: [N, H, W, C * 9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return views.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


class Block:
    """Conv 3x3 without bias, BatchNorm, ReLU and, where asked for, MaxPool 2x2."""

    def __init__(self, inputs, outputs, *, pool, rng):
        self.weight = rng.normal(size=(outputs, inputs, 3, 3)) * np.sqrt(2 / (inputs * 9))
        self.gamma, self.beta = np.ones(outputs), np.zeros(outputs)
        self.mean, self.variance = np.zeros(outputs), np.ones(outputs)
        self.pool = pool

    def forward(self, x, *, training):
        """X [N, C, H, W] → [N, O, H, W], halved when pooling."""
        self.x = x
        self.columns = _windows(x)
        y = self.columns @ self.weight.reshape(len(self.weight), -1).T
        if training:
            mean, variance = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))
            self.mean += (1 - MOMENTUM) * (mean - self.mean)
            self.variance += (1 - MOMENTUM) * (variance - self.variance)
        else:
            mean, variance = self.mean, self.variance
        self.deviation = np.sqrt(variance + EPS)
        self.normal = (y - mean) / self.deviation
        y = np.maximum(self.normal * self.gamma + self.beta, 0).transpose(0, 3, 1, 2)
        self.active = y > 0
        if not self.pool:
            return y
        n, c, h, w = y.shape
        tiles = y.reshape(n, c, h // 2, 2, w // 2, 2)
        top = tiles.max(axis=(3, 5), keepdims=True)
        self.winners = tiles == top
        self.winners = self.winners / self.winners.sum(axis=(3, 5), keepdims=True)
        return top.reshape(n, c, h // 2, w // 2)

    def backward(self, grad):
        """Gradients of the parameters, and of the input."""
        if self.pool:
            n, c, h, w = grad.shape
            grad = (self.winners * grad[:, :, :, None, :, None]).reshape(n, c, 2 * h, 2 * w)
        grad = (grad * self.active).transpose(0, 2, 3, 1)
        d_gamma, d_beta = (grad * self.normal).sum(axis=(0, 1, 2)), grad.sum(axis=(0, 1, 2))
        count = grad.size / grad.shape[-1]
        grad = self.gamma / self.deviation * (grad - d_beta / count - self.normal * d_gamma / count)
        rows = grad.reshape(-1, grad.shape[-1])
        d_weight = (rows.T @ self.columns.reshape(len(rows), -1)).reshape(self.weight.shape)
        flipped = self.weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        back = _windows(grad.transpose(0, 3, 1, 2)) @ flipped.reshape(len(flipped), -1).T
        return [d_weight, d_gamma, d_beta], back.transpose(0, 3, 1, 2)

    def parameters(self):
        """What training changes."""
        return [self.weight, self.gamma, self.beta]


class Network:
    """Three blocks and a classifier for images [N, 1, 16, 16]."""

    def __init__(self, rng):
        self.blocks = [
            Block(1, 16, pool=True, rng=rng),
            Block(16, 32, pool=True, rng=rng),
            Block(32, 32, pool=False, rng=rng),
        ]
        self.weight = rng.normal(size=(10, 512)) * np.sqrt(1 / 512)
        self.bias = np.zeros(10)

    def forward(self, x, *, training=False):
        """Probabilities [N, 10]."""
        for block in self.blocks:
            x = block.forward(x, training=training)
        self.features = x
        logits = x.reshape(len(x), -1) @ self.weight.T + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)

    def gradients(self, x, labels):
        """Gradients of the mean cross entropy, in the order of `parameters`."""
        grad = self.forward(x, training=True)
        grad[np.arange(len(x)), labels] -= 1
        grad /= len(x)
        found = [grad.T @ self.features.reshape(len(x), -1), grad.sum(axis=0)]
        grad = (grad @ self.weight).reshape(self.features.shape)
        for block in reversed(self.blocks):
            own, grad = block.backward(grad)
            found = own + found
        return found

    def parameters(self):
        """What training changes."""
        return [p for block in self.blocks for p in block.parameters()] + [self.weight, self.bias]


def train(network, images, labels, *, epochs, rng):
    """Adam (Kingma and Ba 2014) on random batches, the rate falling to zero."""
    parameters = network.parameters()
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    step = 0
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            step += 1
            slopes = network.gradients(images[chosen], labels[chosen])
            pace = RATE * (1 - epoch / epochs)
            for value, slope, m, v in zip(parameters, slopes, first, second, strict=True):
                m[...] = 0.9 * m + 0.1 * slope
                v[...] = 0.999 * v + 0.001 * slope**2
                mean, power = m / (1 - 0.9**step), v / (1 - 0.999**step)
                value -= pace * mean / (np.sqrt(power) + 1e-8)  # noqa: PLW2901 - in place
