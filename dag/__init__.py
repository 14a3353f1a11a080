"""Turn a manifest into a running DAG, on the access point."""
