"""edgeloop on one workload: python side_edgeloop.py FOLDER W1 THREADS SECONDS."""

import sys

import measure

folder, name, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
measure.pin(threads)
import numpy as np  # noqa: E402

import edgeloop as el  # noqa: E402

session = el.Session(el.load(f"{folder}/{name}.t{threads}.elp"))
with np.load(f"{folder}/{name}.npz") as z:
    session.load_adapter({k[2:]: z[k] for k in z.files if k.startswith("p:")})
    batches = [(z[f"x{i}"], z[f"y{i}"]) for i in range(4)]
plan = session.program.plan
measure.run(session.step, batches, seconds,
            {"ram_bytes": plan.ram_bytes, "weight_bytes": plan.weight_bytes,
             "step_flops": plan.step_flops})
