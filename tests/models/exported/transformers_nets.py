"""Transformers of Hugging Face's library with random weights, as they are exported.

``attention`` is "eager" (written out) or "sdpa" (PyTorch's fused call); the numbers are the same.
"""

from __future__ import annotations

from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)


class Pixels(nn.Module):
    """Logits of an image model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values).logits


class Masked(nn.Module):
    """Logits of an encoder from token ids and a padding mask."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


class Causal(nn.Module):
    """Logits of a decoder from token ids, with a padding mask or without."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def vit(width, heads, layers=12, classes=10):
    return lambda attention: Pixels(ViTForImageClassification(ViTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, image_size=224, patch_size=16, num_labels=classes,
        attn_implementation=attention)))


def bert(attention):
    """MiniLM-L6's shape but for a vocabulary of 200 words."""
    return Masked(BertForSequenceClassification(BertConfig(
        vocab_size=200, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
        intermediate_size=1536, max_position_embeddings=128, num_labels=4,
        attn_implementation=attention)))


def gpt2(attention):
    return Causal(GPT2LMHeadModel(GPT2Config(
        vocab_size=100, bos_token_id=1, eos_token_id=2, n_positions=32, n_embd=64, n_layer=3,
        n_head=4, attn_implementation=attention)))


def llama(attention):
    return Causal(LlamaForCausalLM(LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        attn_implementation=attention)))


NETS = {
    "vit_tiny": vit(192, 3), "vit_small": vit(384, 6), "bert": bert, "gpt2": gpt2, "llama": llama,
}
