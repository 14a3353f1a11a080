"""Shared parts of the tests and the lab: archives, servers with faults, rasters."""
