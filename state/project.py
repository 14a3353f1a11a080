"""Where this program lies, and its version."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# The program that people call, and that HTCondor calls for them.
PROGRAM = PROJECT / "cog_pipeline.py"
