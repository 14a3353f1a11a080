"""Make products of the COGs of finished runs. One module a product."""
