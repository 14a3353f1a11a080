"""Compare a whole run with the script that a user would write instead."""
