"""The location and the version of this program."""

from pathlib import Path

# The same as in pyproject.toml; a test compares them.
VERSION = "0.1.0"
PROJECT = Path(__file__).resolve().parent.parent
# The program that people call, and that HTCondor calls for them.
PROGRAM = PROJECT / "cog_pipeline.py"
