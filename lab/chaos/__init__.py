"""Inject random faults into a pool and an S3 server: ``make chaos``."""
