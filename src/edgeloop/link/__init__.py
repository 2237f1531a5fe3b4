"""The way to the update server and back: slow, interrupted, and believed in nothing."""
