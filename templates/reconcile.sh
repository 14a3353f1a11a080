#!/bin/sh
# The POST script of the FINAL node of the run. You can also run it by hand.
{% for name, value in environment.items() %}
export {{ name }}={{ [value] | shell }}
{% endfor %}
exec {{ [python, script, "reconcile", run.directory] | shell }} "$@"
