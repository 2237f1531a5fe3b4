"""Sessions: run a program's entries."""
