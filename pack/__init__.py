"""Make the one file of ``--node-environment packed``: docs/execution-points.md."""
