"""Save adapters of the models in tests/golden/onnx with Hugging Face PEFT (needs torch, peft).

Run: python tests/golden/make_peft.py. Each folder holds PEFT's two files, and x and y of PyTorch.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from make_golden import build
from peft import IA3Config, LoraConfig, get_peft_model

OUT = Path(__file__).parent / "peft"
ADAPTERS = {
    "mlp": ("mlp", LoraConfig(
        r=2, lora_alpha=5, target_modules=["0", "2"], rank_pattern={"2": 3},
        alpha_pattern={"2": 4},
    )),
    "conv1d": ("har", LoraConfig(r=2, lora_alpha=3, target_modules=["conv1", "fc"])),
    "conv2d": ("residual", LoraConfig(
        r=3, lora_alpha=6, target_modules=["stem", "a", "b", "down"], modules_to_save=["fc"],
    )),
    "rslora": ("attention", LoraConfig(
        r=2, lora_alpha=3, target_modules=["query", "value"], use_rslora=True,
    )),
    "dora": ("attention", LoraConfig(
        r=2, lora_alpha=3, target_modules=["key", "out.0", "out.2"], use_dora=True,
    )),
    "ia3": ("attention", IA3Config(
        target_modules=["key", "value", "out.2"], feedforward_modules=["out.2"],
    )),
    "ia3conv": ("residual", IA3Config(
        target_modules=["stem", "b", "fc"], feedforward_modules=["b"],
    )),
    "dora2d": ("residual", LoraConfig(r=2, target_modules=["stem", "down"], use_dora=True)),
}


def main():
    warnings.simplefilter("ignore")
    for name, (base, config) in ADAPTERS.items():
        model, x = build(base)
        adapted = get_peft_model(model, config).eval()
        g = torch.Generator().manual_seed(5)
        for p in adapted.parameters():
            if p.requires_grad:
                p.data += 0.2 * torch.randn(p.shape, generator=g)
        folder = OUT / name
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink()
        with torch.no_grad():
            np.savez(folder / "io.npz", x=x.numpy(), y=adapted(x).numpy())
    for cache in OUT.rglob(".cache"):
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
