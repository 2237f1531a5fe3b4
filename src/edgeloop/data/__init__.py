"""Streams, clips and feature pipelines of the device."""
