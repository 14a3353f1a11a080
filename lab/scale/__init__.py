"""Measure the cost of many rows and objects on one machine: ``make scale``."""
