"""PyTorch + PEFT on the work of a row of resident.py: the same Llama shape, LoRA and sequence.

    python resident_torch.py ROW STEPS {f32,bf16}

The base as frameworks hold it, in memory. Prints what resident.py prints of its own runs, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import llama
import resident
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

PROJECTIONS = {"*.o": "o_proj", **{f"*.{k}": f"{k}_proj" for k in "qkv"},
               **{f"*.{k}": f"{k}_proj" for k in ("gate", "up", "down")}}


def main() -> None:
    name, steps, dtype = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    row, shape = resident.ROWS[name], llama.SHAPES[name]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if dtype == "bf16" else torch.float32)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.dim, intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv, tie_word_embeddings=shape.tied))
    assert sum(p.numel() for p in model.parameters()) == shape.params
    model = get_peft_model(model, LoraConfig(
        r=8, lora_alpha=8, lora_dropout=0.0, target_modules=[PROJECTIONS[t] for t in row.targets]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(0, shape.vocab, (1, shape.time + 1))

    def step() -> float:
        optimizer.zero_grad()
        logits = model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits[0].float(), ids[0, 1:])
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    step()
    began = time.perf_counter()
    losses = [step() for _ in range(steps)]
    seconds = (time.perf_counter() - began) / steps
    with open("/proc/self/status") as f:
        status = dict(line.split(":") for line in f if line.startswith(("Vm", "Rss")))
    kib = {k: int(v.split()[0]) for k, v in status.items()}
    print(json.dumps({"losses": losses, "seconds": seconds, "peak": kib["VmHWM"] * 1024,
                      "anonymous": kib["RssAnon"] * 1024, "file": kib["RssFile"] * 1024}))


if __name__ == "__main__":
    main()
