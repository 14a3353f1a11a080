"""Run the main job on this machine, from nothing to two CSVs: ``make demo``."""
