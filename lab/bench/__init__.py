"""Compare the cost of a conversion with that of other methods: ``make bench``."""
