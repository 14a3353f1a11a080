"""Code that several programs of lab/ share."""
