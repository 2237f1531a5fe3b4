"""JAX on one workload (see measure.py): the whole training step is one jitted function."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

case = measure.arguments()
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax_nets import NETS  # noqa: E402

LR = 0.05
with np.load(f"{case.folder}/{case.name}.weights.npz") as z:
    trained, frozen = ({k[2:]: jnp.asarray(z[k]) for k in z.files if k[0] == kind}
                       for kind in "pw")


def loss_of(trained, frozen, x, y):
    out = NETS[case.name]({**frozen, **trained}, x)
    if case.name == "W3":
        return ((out - y) ** 2).mean()
    picked = jnp.take_along_axis(jax.nn.log_softmax(out), y[..., None], -1)
    return -picked.mean()


def update(trained, frozen, x, y):
    loss, grads = jax.value_and_grad(loss_of)(trained, frozen, x, y)
    return loss, jax.tree.map(lambda p, g: p - LR * g, trained, grads)


update = jax.jit(update, donate_argnums=0)


def step(x, y):
    global trained
    loss, trained = update(trained, frozen, x, y)
    jax.block_until_ready(trained)
    return float(loss)


with np.load(f"{case.folder}/{case.name}.data.npz") as z:
    batches = [tuple(jnp.asarray(a.astype(np.float32 if a.dtype.kind == "f" else np.int32))
                     for a in (z[f"x{i}"], z[f"y{i}"])) for i in range(4)]
measure.run(step, batches, case, {})
