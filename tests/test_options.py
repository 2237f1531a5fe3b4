"""Options as records and as text; units."""

from __future__ import annotations

import pytest

import edgeloop.loss as losses
from edgeloop.errors import CompileError, EdgeLoopError
from edgeloop.options import (
    IA3,
    SGD,
    Adafactor,
    AdamW,
    AdamW8bit,
    Adapter,
    Bias,
    Full,
    Head,
    LastLayers,
    Lion,
    LoRA,
    Prefix,
    Sparse,
    narrowed,
    parse_head,
    parse_optimizer,
    parse_train,
)
from edgeloop.units import format_bytes, parse_bytes, parse_seconds


def test_text_forms():
    assert parse_train("lora:rank=8,targets=*.pw+last:count=2") == (
        LoRA(rank=8, targets="*.pw"), LastLayers(2))
    assert parse_train("bias") == (Bias(),)
    text = "lora:rank=auto,dora=true,dropout=0.1,targets=*.q;*.v,ranks=*.q:2;*.v:8"
    assert parse_train(text) == (
        LoRA(rank="auto", dora=True, dropout=0.1, targets=("*.q", "*.v"),
             ranks={"*.q": 2, "*.v": 8}),)
    assert parse_train("ia3:targets=*.k,feedforward=*.down+adapter:bottleneck=4,position=pfeiffer"
                       ) == (IA3("*.k", "*.down"), Adapter(4, "pfeiffer"))
    assert parse_train("prefix:length=3,gated=false") == (Prefix(3, gated=False),)
    assert parse_train("sparse:a.b=0..4,c=all") == (Sparse({"a.b": (0, 4), "c": "all"}),)
    assert parse_head("5") == Head(5)
    assert parse_head("classes=5,init=uniform,layer=fc") == Head(5, "uniform", "fc")
    assert parse_train("full") == (Full(),)
    assert parse_optimizer("adamw:lr=1e-3,eps=1e-7") == AdamW(lr=1e-3, eps=1e-7)
    assert parse_optimizer("SGD:momentum=0.9") == SGD(momentum=0.9)
    assert parse_optimizer("adamw8bit:betas=0.8;0.9") == AdamW8bit(betas=(0.8, 0.9))
    assert parse_optimizer("lion:bits=8,weight_decay=0.1") == Lion(bits=8, weight_decay=0.1)
    assert parse_optimizer("adafactor:eps=1e-6;0.01") == Adafactor(eps=(1e-6, 0.01))


@pytest.mark.parametrize(("text", "message"), [
    ("lorra", "unknown training method 'lorra'; one of lora"),
    ("lora:rank", "write lora:key=value"),
    ("lora:depth=3", "training method 'lora'"),
    ("lora:rank=0", "LoRA rank is 0"),
    ("sparse:a=4..4", r"Sparse 'a' is \(4, 4\)"),
    ("last:count=0", "LastLayers count is 0"),
])
def test_bad_text_is_one_error(text, message):
    with pytest.raises(CompileError, match=message):
        parse_train(text)


def test_bad_values():
    for make in (lambda: SGD(lr=-1), lambda: SGD(momentum=1.0), lambda: AdamW(betas=(1.0, 0.9)),
                 lambda: AdamW(lr=-1), lambda: Lion(bits=4), lambda: Adafactor(eps=(0.0, 0.001)),
                 lambda: Adafactor(beta2_decay=0.1), lambda: Adafactor(d=0),
                 lambda: parse_optimizer("adamw:betas=a;b"),
                 lambda: losses.resolve("hinge")):
        with pytest.raises(CompileError):
            make()


def test_the_same_optimizer_with_small_state():
    assert narrowed(AdamW(3e-3, eps=1e-7)) == AdamW8bit(3e-3, eps=1e-7)
    assert narrowed(Lion(3e-3)) == Lion(3e-3, bits=8)
    for without in (SGD(momentum=0.9), AdamW8bit(), Lion(bits=8), Adafactor()):
        assert narrowed(without) is None


def test_scale():
    assert LoRA(rank=4).scale == 2.0
    assert LoRA(rank=4, alpha=4).scale == 1.0


def test_units():
    assert parse_bytes("256 KiB") == 256 * 1024
    assert parse_bytes("1.5MB") == 1_500_000
    assert parse_bytes(7) == 7
    assert parse_seconds("900 ms") == pytest.approx(0.9)
    assert parse_seconds(2) == 2.0
    assert format_bytes(1536) == "1.5 KiB"
    assert format_bytes(100) == "100 B"
    for bad in ("", "12 parsec", "-3 KiB", "KiB"):
        with pytest.raises(EdgeLoopError):
            parse_bytes(bad)
    with pytest.raises(EdgeLoopError):
        parse_seconds("soon")
