"""Products of finished runs: what the COGs become together. One module a product."""
