"""Train the digits network and write it as Caffe, Darknet and ONNX, with images and labels.

    python samples/digits/train.py

The images are scikit-learn's digits: 1,797 scans of handwritten digits, 8x8 pixels, from the UCI
repository (E. Alpaydin, C. Kaynak, 1998). 100 of the training images become `calibration/`, 200
images the network never saw become `test/`.
"""

from __future__ import annotations

import json
from pathlib import Path

import export
import numpy as np
from network import Network, train
from PIL import Image
from sklearn.datasets import load_digits

from qconvert.dataset.preprocessing import Preprocessing

HERE = Path(__file__).parent
PREPROCESSING = {
    "size": [16, 16],
    "color": "gray",
    "mean": [0],
    "norm": [1 / 256],
    "resize": "squash",
}


def pictures():
    """The scans as 8-bit images, and their labels."""
    digits = load_digits()
    return (digits.images * 15).astype(np.uint8), digits.target


def save(folder, images, labels):
    """PNG files, and labels.txt beside the folder."""
    folder.mkdir(exist_ok=True)
    names = [f"{index:03d}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    rows = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
    (folder.parent / f"{folder.name}_labels.txt").write_text("".join(rows))


def main():
    """Train, say how well it went, write everything."""
    rng = np.random.default_rng(7)
    images, labels = pictures()
    order = rng.permutation(len(images))
    images, labels = images[order], labels[order]
    preprocessing = Preprocessing.from_mapping(PREPROCESSING, "the sample")
    inputs = np.concatenate([preprocessing.apply(Image.fromarray(image)) for image in images])
    network = Network(rng)
    train(network, inputs[200:], labels[200:], epochs=30, rng=rng)
    right = network.forward(inputs[:200]).argmax(axis=1) == labels[:200]
    print(f"top-1 on 200 unseen scans: {right.mean():.1%}")

    export.caffe(network, HERE)
    export.darknet(network, HERE)
    export.onnx(network, HERE)
    save(HERE / "test", images[:200], labels[:200])
    save(HERE / "calibration", images[200:300], labels[200:300])
    (HERE / "preprocessing.json").write_text(json.dumps(PREPROCESSING, indent=1) + "\n")


if __name__ == "__main__":
    main()
