"""Operators: one record each, registered on import; see docs/guide/add-an-op.md."""

from edgeloop.ops import (
    adafactor,
    attention,
    binary,
    conv,
    dropout,
    fake_quant,
    fetch,
    gather,
    group_norm,
    index,
    interpolate,
    layer_norm,
    linear,
    loss,
    loss_classes,
    loss_head,
    maps,
    matmul,
    merge_codes,
    norm,
    optim,
    optim8,
    pool,
    quant,
    quant_bf16,
    quant_conv,
    quant_head,
    quant_i8,
    quant_i8_conv,
    recurrent,
    reduce,
    rms_norm,
    rotary,
    saved,
    select,
    shape,
    softmax,
    trig,
)
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.interpreter import evaluate
from edgeloop.ops.registry import NO_GRAD, OPS, Attr, Grads, OpDef, Sample, register

__all__ = [
    "NO_GRAD", "OPS", "Attr", "Builder", "Grads", "OnnxNode", "OpDef", "Sample", "adafactor",
    "attention", "binary", "conv", "dropout", "evaluate", "fake_quant", "fetch", "gather",
    "group_norm", "index", "interpolate", "layer_norm", "linear", "loss", "loss_classes",
    "loss_head", "maps", "matmul", "merge_codes", "norm", "optim", "optim8", "pool", "quant",
    "quant_bf16", "quant_conv", "quant_head", "quant_i8", "quant_i8_conv", "recurrent", "reduce",
    "register", "rms_norm", "rotary", "saved", "select", "shape", "softmax", "trig",
]
