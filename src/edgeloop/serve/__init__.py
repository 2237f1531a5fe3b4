"""Predictions of the adapted model, in a program of one's own or over HTTP."""

from edgeloop.serve.predictor import Answer, Predictor

__all__ = ["Answer", "Predictor"]
