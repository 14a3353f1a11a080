#!/bin/sh
# The POST script of the run's FINAL node; also runs by hand.
exec {{ [python, script, "reconcile", run.directory] | shell }} "$@"
