"""All that knows HTCondor: its queue, its logs, its languages."""
