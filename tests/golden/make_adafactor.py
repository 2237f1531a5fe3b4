"""Write adafactor.npz: six steps of PyTorch's Adafactor on a matrix and on a vector (needs torch).

    python tests/golden/make_adafactor.py
"""

from pathlib import Path

import numpy as np
import torch

SHAPES = {"matrix": (5, 9), "vector": (9,)}
STEPS = 6


def steps(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Gradients of six steps that shrink and grow, and all that the optimizer keeps after them."""
    rng = np.random.default_rng(3)
    w = torch.nn.Parameter(torch.tensor(rng.standard_normal(shape).astype(np.float32)))
    grads = [rng.standard_normal(shape).astype(np.float32) * (4 if t % 3 else 0.1)
             for t in range(STEPS)]
    out = {"w": [w.detach().numpy().copy()], "grad": grads, "state0": [], "state1": []}
    optimizer = torch.optim.Adafactor([w], lr=0.03, weight_decay=0.1)
    for g in grads:
        w.grad = torch.tensor(g)
        optimizer.step()
        out["w"].append(w.detach().numpy().copy())
        kept = [v for k, v in optimizer.state[w].items() if k != "step"]
        for i, v in enumerate(kept):
            out[f"state{i}"].append(v.numpy().reshape(-1).copy())
    return {k: np.stack(v) for k, v in out.items() if v}


if __name__ == "__main__":
    made = {f"{name}.{k}": v for name, shape in SHAPES.items() for k, v in steps(shape).items()}
    np.savez_compressed(Path(__file__).parent / "adafactor.npz", **made)
