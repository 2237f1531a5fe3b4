"""edgeloop on one workload; FOLDER is that of the compiled programs (see measure.py)."""

import sys
import time
from pathlib import Path

import measure

case = measure.arguments()
import numpy as np  # noqa: E402

import edgeloop as el  # noqa: E402

folder, kind = Path(case.folder), "predict" if case.predicts else "train"
begin = time.perf_counter()
program = el.load(str(folder / f"{case.name}.{case.mode}.{kind}.elp"))
session = el.Session(program, threads=case.threads)
load_s = time.perf_counter() - begin
with np.load(folder / f"{case.name}.npz") as z:
    if not case.predicts:
        session.load_adapter({k[2:]: z[k] for k in z.files if k.startswith("p:")})
    batches = [(z[f"x{i}"], z[f"y{i}"]) for i in range(4)]


def predict(x, _):
    return session.predict(x)


plan = program.plan
measure.run(predict if case.predicts else session.step, batches, case, {
    "load_s": round(load_s, 4), "ram_bytes": plan.ram_bytes, "weight_bytes": plan.weight_bytes,
    "flops": plan.forward_flops if case.predicts else plan.step_flops,
}, lambda y: float(np.abs(y).mean()))
sys.stdout.write("\n")
