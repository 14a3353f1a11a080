#!/usr/bin/env python3
"""The command line of cog_pipeline; see README.md."""

from cli.group import CommandLine

# The commands under their headings in --help, which does not show hidden ones.
cli = CommandLine(
    {
        "Convert an archive": [
            *("init", "list", "manifest", "launch", "convert", "config"),
        ],
        "Watch": ["status", "jobs", "logs", "failures", "validate", "health", "cost"],
        "Publish": ["catalog"],
        "Repair": ["retry", "hold", "release", "stop", "clean"],
        "Try it on one machine": ["pool"],
        "Called by HTCondor": ["poll", "reconcile"],
    }
)

if __name__ == "__main__":
    cli()
