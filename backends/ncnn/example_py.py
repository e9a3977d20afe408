"""The text of `example.py`, for `string.Template`."""

from __future__ import annotations

from typing import Final

__all__ = ["ARRAYS", "FITS", "PICTURE", "SEVERAL", "SWAP"]

_RUN: Final = '''

def load():
    """The network."""
    net = ncnn.Net()
    # As the bundle was verified. Without this line ncnn may compute with halves, which is faster
    # and a little less exact.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
${options}    files = (str(HERE / "model.param"), str(HERE / "model.bin"))
    if net.load_param(files[0]) or net.load_model(files[1]):
        sys.exit("the model does not load")
    return net


def run(net, inputs):
    """Input name -> float32 array, without the batch, to output name -> array."""
    extractor = net.create_extractor()
    for name, array in inputs.items():
        array = np.ascontiguousarray(array, dtype=np.float32)
        extractor.input(name, ncnn.Mat(array).clone())
    results = {}
    for name, shape in OUTPUTS.items():
        code, blob = extractor.extract(name)
        if code:
            sys.exit(f"{name} cannot be computed")
        if -1 in shape:  # one row for each object: label, score, x0, y0, x1, y1
            rows = np.zeros((0, 6), np.float32) if blob.empty() else np.array(blob)
            rows[:, 0] -= FIRST_LABELS.get(name, 0)
            results[name] = rows
        else:
            results[name] = np.array(blob).reshape(shape)
    return results


def show(results):
    """Print what came out."""
    for name, array in results.items():
        print(name, list(array.shape))
        if array.ndim == 2 and array.shape[0] == 1:
            for index in np.argsort(-array[0], kind="stable")[:5]:
                print(f"  {index:6d} {array[0, index]:.6f}")
        else:
            print(" ", array.reshape(-1)[:10])
'''

PICTURE: Final = (
    '''"""Runs this bundle on pictures.

    pip install ncnn numpy pillow
    python example.py photo.jpg
"""

import sys
from pathlib import Path

import ncnn
import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
INPUT = ${input}
OUTPUTS = ${outputs}
FIRST_LABELS = ${labels}
WIDTH, HEIGHT = ${width}, ${height}
MEAN = ${mean}
NORM = ${norm}


def preprocess(path):
    """A picture as the network wants it: float32 [C, H, W], (pixel - MEAN) * NORM."""
    pixels = np.array(ImageOps.exif_transpose(Image.open(path)).convert(${mode}))
    rows, columns = pixels.shape[:2]
    kind = ncnn.Mat.PixelType.${pixels}
${fit}    blob.substract_mean_normalize(MEAN, NORM)
    return np.array(blob)${swap}
'''
    + _RUN
    + """

def main():
    if len(sys.argv) < 2:
        sys.exit("python example.py photo.jpg ...")
    net = load()
    for path in sys.argv[1:]:
        show(run(net, {INPUT: preprocess(path)}))


if __name__ == "__main__":
    main()
"""
)

ARRAYS: Final = (
    '''"""Runs this bundle on arrays: one float32 .npy file for each input.

    pip install ncnn numpy
    python example.py input.npy ...
"""

import sys
from pathlib import Path

import ncnn
import numpy as np

HERE = Path(__file__).resolve().parent
INPUTS = ${inputs}
INDICES = ${indices}
OUTPUTS = ${outputs}
FIRST_LABELS = ${labels}
'''
    + _RUN
    + """

def main():
    if len(sys.argv) != 1 + len(INPUTS):
        sys.exit(f"python example.py {' '.join(name + '.npy' for name in INPUTS)}")
    arrays = [np.load(path) for path in sys.argv[1:]]
    inputs = {name: a.reshape(shape) for (name, shape), a in zip(INPUTS.items(), arrays)}
    for name in INDICES:  # ncnn reads these as integers
        inputs[name] = inputs[name].astype(np.int32).view(np.float32)
    show(run(load(), inputs))


if __name__ == "__main__":
    main()
"""
)

SEVERAL: Final = """    net.opt.lightmode = False  # keeps every output until all are read
"""

SWAP: Final = ".swapaxes(1, 2)  # trained with x and y swapped"

FITS: Final = {
    "squash": """    blob = ncnn.Mat.from_pixels_resize(pixels, kind, columns, rows, WIDTH, HEIGHT)
""",
    "letterbox": """    scale = min(WIDTH / columns, HEIGHT / rows)
    w, h = (max(round(side * scale), 1) for side in (columns, rows))
    blob = ncnn.Mat.from_pixels_resize(pixels, kind, columns, rows, w, h)
    left, top = (WIDTH - w) // 2, (HEIGHT - h) // 2
    right, bottom = WIDTH - w - left, HEIGHT - h - top
    blob = ncnn.copy_make_border(blob, top, bottom, left, right, 0, ${fill})
""",
    "center-crop": """    scale = ${short} / min(columns, rows) if ${short} else 1
    w, h = round(columns * scale), round(rows * scale)
    blob = ncnn.Mat.from_pixels_resize(pixels, kind, columns, rows, w, h)
    left, top = (w - WIDTH) // 2, (h - HEIGHT) // 2
    blob = ncnn.copy_cut_border(blob, top, h - HEIGHT - top, left, w - WIDTH - left)
""",
}
"""How a picture gets the network's size."""
