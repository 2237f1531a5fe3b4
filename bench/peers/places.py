"""Where the peers' environments and the exported models are: outside of the checkout.

EDGELOOP_PEERS names the folder; default edgeloop-peers in the user's cache. W7 needs some 3.5 GB
there, the environments 5 GB. EDGELOOP_TORCH is an interpreter that has torch already.
"""

from __future__ import annotations

import os
from pathlib import Path

# environment -> what pip installs, one call after another
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    # torch first and alone: with others beside it pip may choose the build for GPUs
    "torch": (("torch==2.13.0",), ("numpy", "onnx", "onnxscript")),
    "ort": (("onnxruntime==1.32.0", "numpy"),),
    "jax": (("jax==0.10.2", "numpy"),),
    # the last release of ONNX Runtime's training, with the onnx of its time; making the artifacts
    # imports torch, running them does not
    "ort-training": (("numpy<2", "onnx==1.16.2", "onnxruntime-training==1.19.2"),),
    "ort-artifacts": (("torch==2.13.0",), ("numpy<2", "onnx==1.16.2",
                                           "onnxruntime-training==1.19.2", "cerberus", "h5py")),
}


def home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("EDGELOOP_PEERS") or cache / "edgeloop-peers")


def models() -> Path:
    return home() / "models"


def python(environment: str) -> Path:
    if environment == "torch" and (own := os.environ.get("EDGELOOP_TORCH")):
        return Path(own)
    return home() / environment / "bin" / "python"
