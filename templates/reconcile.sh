#!/bin/sh
# The POST script of the FINAL node of the run. You can also run it by hand.
exec {{ [python, script, "reconcile", run.directory] | shell }} "$@"
