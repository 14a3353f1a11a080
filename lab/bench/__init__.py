"""What a conversion costs, beside other ways to do it: ``make bench``."""
