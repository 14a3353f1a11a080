"""End a run after its last node, on the access point."""
