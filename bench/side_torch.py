"""PyTorch eager on one workload: python side_torch.py W1 THREADS SECONDS."""

import sys

import measure

name, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
measure.pin(threads)
import torch  # noqa: E402
import workloads  # noqa: E402

torch.set_num_threads(threads)
model = workloads.adapted(name)
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], workloads.LR)
loss_of = (torch.nn.functional.cross_entropy if workloads.WORKLOADS[name][4] is not None
           else torch.nn.functional.mse_loss)


def step(x, y):
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in workloads.data(name)]
measure.run(step, batches, seconds, {})
