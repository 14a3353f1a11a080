"""``--node-environment packed``: see docs/execution-points.md."""
