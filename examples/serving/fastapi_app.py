"""Predictions inside a FastAPI application of one's own.

    PROGRAM=machine.elp STATE=device.db uvicorn --app-dir examples/serving fastapi_app:app

A loop may learn meanwhile, in a process of its own.
"""

from __future__ import annotations

import os

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import edgeloop as el

app = FastAPI()
predictor = el.Predictor(os.environ["PROGRAM"], os.environ["STATE"])
names = predictor.program.metadata["classes"]


class Rows(BaseModel):
    """Rows of numbers, as the model takes them."""

    rows: list[list[float]]


@app.post("/classify")
def classify(asked: Rows) -> dict[str, object]:  # not async: FastAPI runs it in a thread
    """Name the class of each row."""
    try:
        answer = predictor.predict(np.array(asked.rows, np.float32))
    except (el.InputError, ValueError) as error:
        raise HTTPException(422, str(error)) from error
    (scores,) = answer.outputs.values()
    return {"classes": [names[i] for i in scores.argmax(axis=1)], "version": answer.version}
