"""All adaptation tasks by name; needs the `tasks` extra (scikit-learn)."""

from __future__ import annotations

from tasks import anomaly, digits, forecast, keyword, motion, text
from tasks.common import Task

TASKS: dict[str, Task] = {
    t.name: t
    for t in (digits.VIT, digits.RESNET, digits.MOBILENET, keyword.TASK, motion.TASK,
              text.TASK, forecast.TASK, anomaly.TASK)
}
