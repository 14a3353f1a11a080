"""make chaos: random faults against the real parts; then the promise, row by row."""
