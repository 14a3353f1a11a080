"""Write docs/commands.md from the help of the commands: ``make commands``."""

from collections.abc import Iterator

import click

from cog_pipeline import cli
from state.project import PROJECT

PAGE = PROJECT / "docs" / "commands.md"
_WIDTH = 80
_INTRODUCTION = """\
# Commands

This page has what `python3 cog_pipeline.py COMMAND --help` prints. `make commands`
writes it. [The reference](reference.md#commands) explains the output of each command.

A shell can complete the commands. For bash, run this in the clone, and then type
`./cog_pipeline.py`:

    eval "$(_COG_PIPELINE_PY_COMPLETE=bash_source ./cog_pipeline.py)"

For zsh and fish, put `zsh_source` or `fish_source` in place of `bash_source`.
"""


def page() -> str:
    """Return the page, in Markdown."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    context = click.Context(cli, info_name="cog_pipeline.py")
    visible = dict(cli.visible_commands(context))
    for heading, names in cli.sections.items():
        shown = [name for name in names if name in visible]
        if shown:
            yield f"## {heading}\n"
        for name in shown:
            yield from _command(visible[name], name, context)


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(
        command, parent, name, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    words = context.command_path.removeprefix("cog_pipeline.py ")
    yield f"### {words}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            if subcommand := command.get_command(context, sub):
                yield from _command(subcommand, sub, context)


if __name__ == "__main__":
    PAGE.write_text(page())
