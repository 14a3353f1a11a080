"""Run commands in this process, which is faster than starting Python."""

import os

from click.testing import CliRunner, Result

from cog_pipeline import cli


def invoke(*arguments: str) -> Result:
    """Run ``cog_pipeline.py`` with arguments; no server and no HTCondor is needed."""
    umask = os.umask(0o077)
    try:
        return CliRunner(env={"COLUMNS": "80"}).invoke(
            cli, arguments, prog_name="cog_pipeline.py"
        )
    finally:
        # The command changes it for its process.
        os.umask(umask)


def assert_wrong(result: Result, *words: str) -> None:
    """Assert that the command line was refused with a sentence that has some words."""
    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.split())
    for word in words:
        assert word in message
    assert "Traceback" not in message


# The options that each launch must have.
BUCKETS = ("--input-bucket", "maps", "--output-bucket", "cogs")
