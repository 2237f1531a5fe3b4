"""The artifact: spec, file format, plan report."""
