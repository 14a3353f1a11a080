"""After the last node; runs on the access point."""
