"""Runs on the execution point, alone: imports nothing of the rest."""
