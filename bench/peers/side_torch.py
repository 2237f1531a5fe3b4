"""PyTorch on one workload (see measure.py). Modes: eager, compile, bf16.

bf16 is autocast; W7, whose weights would be cast in every step, keeps its base in bf16.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

case = measure.arguments()
import numpy as np  # noqa: E402
import torch  # noqa: E402
import workloads  # noqa: E402

torch.set_num_threads(case.threads)
model = workloads.base(case.name)
if case.mode == "bf16" and case.name == "W7":
    model.bfloat16()
if not case.predicts:
    workloads.adapted(case.name, model)
trained = [p for p in model.parameters() if p.requires_grad]
for p in trained:
    p.data = p.data.float()


def forward(x, y):
    with torch.autocast("cpu", torch.bfloat16, enabled=case.mode == "bf16"):
        out = model(x)
    return out.float() if case.predicts else workloads.loss_of(case.name, out.float(), y)


if case.mode == "compile":
    forward = torch.compile(forward)
if case.predicts:
    @torch.inference_mode()
    def step(x, y):
        return forward(x, y)
else:
    optimizer = torch.optim.SGD(trained, workloads.LR)

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.item()


batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in workloads.data(case.name)]
measure.run(step, batches, case, {}, lambda y: float(np.abs(y).mean()))
