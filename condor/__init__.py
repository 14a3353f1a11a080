"""HTCondor: its queue, its event logs, and the languages of its files."""
