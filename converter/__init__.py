"""Convert trained CNNs into verified, quantized deployment artifacts.

The steps of a conversion as functions on `onnx_ir.Model`: `load`, `optimize`, `calibrate`,
`quantize`, `export`, `verify`; or all of them at once: `convert`. See `qconvert.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.version import __version__

if TYPE_CHECKING:
    from qconvert.api import calibrate as calibrate
    from qconvert.api import convert as convert
    from qconvert.api import export as export
    from qconvert.api import load as load
    from qconvert.api import optimize as optimize
    from qconvert.api import quantize as quantize
    from qconvert.api import verify as verify

__all__ = [
    "__version__",
    "calibrate",
    "convert",
    "export",
    "load",
    "optimize",
    "quantize",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import the steps when they are asked for: a child process wants one module, not all."""
    if name not in __all__:
        raise AttributeError(f"module 'qconvert' has no attribute '{name}'")
    from qconvert import api

    return getattr(api, name)
