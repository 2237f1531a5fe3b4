"""Small random PyTorch models, their ONNX by both exporters, and PEFT around them (needs torch)."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import torch
from torch import nn


class ConvNet(nn.Module):
    """Everything that LoRA can sit on: conv2d, pointwise, conv1d, dense in 2-D and 3-D."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ReLU())
        self.point = nn.Conv2d(6, 8, 1)
        self.strided = nn.Conv2d(8, 8, 1, stride=2)
        self.wave = nn.Conv1d(8, 10, 3, padding=1)
        self.mix = nn.Linear(10, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.strided(torch.relu(self.point(self.stem(x))))
        x = torch.relu(self.wave(x.flatten(2)))
        x = self.norm(torch.tanh(self.mix(x.transpose(1, 2))))
        return self.head(x.mean(1))


class Turned(nn.Module):
    """Hugging Face's Conv1D: dense, with its weight stored as [in, out]."""

    def __init__(self):
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.wide, self.square = Conv1D(12, 8), Conv1D(12, 12)
        self.head = nn.Linear(12, 3)
        for m in (self.wide, self.square):
            nn.init.normal_(m.weight, std=0.4)
            nn.init.normal_(m.bias, std=0.4)

    def forward(self, x):
        return self.head(torch.tanh(self.square(torch.relu(self.wide(x)))))


class BatchNormed(nn.Module):
    """A batch norm between convolutions, with statistics of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        nn.init.uniform_(self.bn.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)

    def forward(self, x):
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class Logits(nn.Module):
    """As one exports a language model: ids in, logits out; module paths begin with ``model.``."""

    def __init__(self, model, first=None):
        super().__init__()
        self.model, self.first = model, first  # position of the first token: behind a prefix

    def forward(self, ids):
        if self.first is not None:
            at = torch.arange(ids.shape[1])[None] + self.first
            ones = torch.ones_like(ids)
            return self.model(input_ids=ids, attention_mask=ones, position_ids=at,
                              use_cache=False).logits
        extra = {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}
        # A mask, even of ones, spares the TorchScript exporter an operator that it does not know.
        return self.model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, max_position_embeddings=16, num_labels=3, is_decoder=False,
        attn_implementation="eager"))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(
        vocab_size=40, bos_token_id=1, eos_token_id=2, n_positions=16, n_embd=24, n_layer=2,
        n_head=3, attn_implementation="eager"))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=40, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
        attn_implementation="eager"))


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        image_size=16, patch_size=8, num_channels=1, num_labels=4, attn_implementation="eager",
    )
    return ViTForImageClassification(config)


MODELS = {
    "convnet": (ConvNet, (3, 2, 16, 12)),
    "turned": (Turned, (3, 8)),
    "batchnorm": (BatchNormed, (3, 1, 8, 8)),
    "vit": (vit, (2, 1, 16, 16)),
    "bert": (bert, 40),
    "gpt2": (gpt2, 40),
    "llama": (llama, 40),
}


def make(name):
    """The model with fixed random weights, and an input."""
    build, shape = MODELS[name]
    torch.manual_seed(3)
    model = build().eval()
    if isinstance(shape, int):
        return model, torch.randint(0, shape, (2, 7), generator=torch.Generator().manual_seed(4))
    return model, torch.randn(shape, generator=torch.Generator().manual_seed(4))


def run(model, x):
    """Output as an array."""
    with torch.no_grad():
        y = model(x)
    return getattr(y, "logits", y).numpy()


def export(model, x, path, kind, first=None):
    """Export with one of the two exporters; module paths are those of ``model``."""
    if not x.is_floating_point():
        model = Logits(model, first).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keep = any(isinstance(m, nn.BatchNorm2d) for m in model.modules())  # apart from its layer
        common = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
        if kind == "script":
            torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=17,
                              do_constant_folding=not keep, **common)
        else:
            torch.onnx.export(model, (x,), str(path), dynamo=True, external_data=False,
                              optimize=not keep, **common)
    return onnx.load(path)


def randomise(model, seed=0):
    """Give every adapter tensor random values: B is zero at the start."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.requires_grad and "magnitude" not in name:
            p.data += torch.randn(p.shape, generator=g) * 0.2
    return model


def noise(adapter, seed=0, scale=0.2):
    """Return the arrays with noise on top."""
    rng = np.random.default_rng(seed)
    return {
        k: (a + rng.standard_normal(a.shape) * scale).astype(np.float32)
        for k, a in adapter.items()
    }
