"""From a manifest to a running DAG; runs on the access point."""
