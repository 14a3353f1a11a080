"""What many rows and many objects cost on one machine: ``make scale``."""
