"""The reference update server: it hands out what others signed."""
