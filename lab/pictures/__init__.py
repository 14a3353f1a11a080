"""Make the pictures of the catalog's pages, with real programs: ``make pictures``."""
