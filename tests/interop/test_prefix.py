"""Plain prefixes as PEFT's prefix tuning: layout, refusals; the numbers are the oracles' matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from interop.torch_free import noise

import edgeloop as el

PATH = Path(__file__).parent.parent / "golden" / "onnx" / "attention.script.onnx"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def program():
    return el.compile(PATH, loss="mse", train=el.Prefix(length=3, gated=False), batch=2)


@pytest.fixture
def folder(program, tmp_path):
    program.export_adapter(tmp_path / "ad", noise(program))
    return tmp_path / "ad"


def test_keys_stand_before_values_head_by_head(program, folder):
    table = safetensors.numpy.load_file(folder / WEIGHTS)["prompt_embeddings"]
    given = noise(program)
    k, v = (next(a for n, a in given.items() if n.endswith(f"prefix_{x}")) for x in "kv")
    length, heads, d = k.shape
    assert table.shape == (length, 2 * heads * d)
    assert np.array_equal(table[1, d : 2 * d], k[1, 1])
    assert np.array_equal(table[2, heads * d : heads * d + d], v[2, 0])
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["num_virtual_tokens"], config["num_layers"], config["token_dim"]) == (
        length, 1, heads * d)
    back = el.import_peft(folder, program)
    assert all(np.array_equal(back[n], given[n]) for n in given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"prompt_embeddings": t[:, :-1]}, "the program needs"),
        (lambda t: {"prompt_embeddings": t * np.nan}, "not finite"),
        (lambda t: {"other": t}, "prompt_embeddings"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, message, program, folder):
    table = safetensors.numpy.load_file(folder / WEIGHTS)["prompt_embeddings"]
    made = {k: np.ascontiguousarray(v) for k, v in change(table).items()}
    safetensors.numpy.save_file(made, folder / WEIGHTS)
    with pytest.raises(el.AdapterError, match=message):
        el.import_peft(folder, program)


def test_gated_prefixes_and_other_programs_are_refused(folder, tmp_path):
    gated = el.compile(PATH, loss="mse", train=el.Prefix(length=3), batch=2)
    with pytest.raises(el.AdapterError, match="gated prefixes"):
        gated.export_adapter(tmp_path / "gated")
    lora = el.compile(PATH, loss="mse", train=el.LoRA(rank=2), batch=2)
    with pytest.raises(el.AdapterError, match="PREFIX_TUNING"):
        el.import_peft(folder, lora)
