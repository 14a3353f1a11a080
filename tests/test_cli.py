"""The commands, the help and the former names of options."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from cli.options import store_options
from cog_pipeline import cli
from condor import queue
from lab import commands, transcripts
from state.launch import FORMER_ORDERS, RUN_ORDERS, Launch
from state.project import PROJECT, VERSION
from tests.support.command_line import BUCKETS, assert_wrong, invoke

REFERENCE = (PROJECT / "docs" / "reference.md").read_text()
CONTEXT = click.Context(cli)
COMMANDS = {name: cli.get_command(CONTEXT, name) for name in cli.list_commands(CONTEXT)}
HIDDEN = {"poll", "reconcile"}


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield each command and subcommand with the words to type for it."""
    for name, command in COMMANDS.items():
        yield name, command
        if isinstance(command, click.Group):
            for sub, subcommand in command.commands.items():
                yield f"{name} {sub}", subcommand


def test_each_module_of_cli_is_a_command_or_shared():
    modules = {path.stem for path in PROJECT.glob("cli/*.py")}
    shared = {"catalog_options", "common", "configuration", "group", "options"}
    shared |= {"runs", "sources"}
    assert modules - COMMANDS.keys() == {"__init__", *shared}


def test_the_help_shows_every_visible_command_in_a_section():
    shown = invoke("--help").stdout
    for name, command in COMMANDS.items():
        line = f"\n  {name} "
        assert (line in shown) != command.hidden
        assert command.hidden == (name in HIDDEN)
    sections = re.findall(r"^([A-Z].*):\n  [\w-]", shown, re.MULTILINE)
    assert "Options" in sections
    assert "Commands" not in sections
    assert "python3 cog_pipeline.py launch -a" in shown
    assert "--input-bucket" in shown


@pytest.mark.parametrize(
    "words", [name for name, command in all_commands() if not command.hidden]
)
def test_the_transcripts_have_each_command(words: str):
    page = transcripts.PAGE.read_text()
    assert f"python3 cog_pipeline.py {words}" in page, "run 'make transcripts'"


@pytest.mark.parametrize("words", [name for name, _ in all_commands()])
def test_every_command_has_a_help_of_whole_sentences(words: str):
    result = invoke(*words.split(), "--help")
    assert result.exit_code == 0
    assert f"Usage: cog_pipeline.py {words} " in result.stdout
    command = dict(all_commands())[words]
    first = command.help.strip().splitlines()[0]
    assert re.match(r"[A-Z]", first)
    assert "…" not in command.get_short_help_str(200)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{words}: {parameter.name}"
            assert parameter.help.endswith("."), f"{words}: {parameter.name}"


def test_the_page_of_commands_is_what_their_help_says():
    assert commands.PAGE.read_text() == commands.page(), "run 'make commands'"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("sta", "plain,status"),
        ("--vers", "plain,--version"),
        ("launch --rows", "plain,--rows-per-job"),
    ],
)
def test_a_shell_completes_commands_and_options(typed: str, completed: str):
    done = subprocess.run(
        [PROJECT / "cog_pipeline.py"],
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "_COG_PIPELINE_PY_COMPLETE": "bash_complete",
            "COMP_WORDS": f"cog_pipeline.py {typed}",
            "COMP_CWORD": str(len(typed.split())),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [completed]


@pytest.mark.parametrize("words", [name for name, _ in all_commands()])
def test_every_command_and_its_options_are_in_the_reference(words: str):
    command = dict(all_commands())[words]
    assert f"`{words}" in REFERENCE
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for flag in (*parameter.opts, *parameter.secondary_opts):
                if flag != "--final-node-of":
                    assert re.search(rf"`{flag}\b", REFERENCE), f"{words} {flag}"


@pytest.mark.parametrize(
    ("typed", "suggestion"),
    [
        (["launhc"], "launch"),
        (["heath", "--json"], "health"),
        (["pol"], "pool"),
        (["pool", "startt"], "start"),
    ],
)
def test_a_mistyped_command_does_not_launch(typed: list[str], suggestion: str):
    word = next(word for word in reversed(typed) if not word.startswith("-"))
    message = f"No such command '{word}'. Did you mean '{suggestion}'?"
    assert_wrong(invoke(*typed), message)


def test_a_word_that_resembles_no_command_gets_no_suggestion():
    result = invoke("xyzzy", *BUCKETS)
    assert_wrong(result, "No such command 'xyzzy'.")
    assert "Did you mean" not in result.stderr


def test_a_hidden_command_is_not_suggested():
    assert "reconcile" not in invoke("reconcil").stderr


def test_the_sections_are_the_groups_of_the_reference():
    table = REFERENCE.partition("| group |")[2].partition("\n\n")[0]
    groups = [group.casefold() for group in re.findall(r"^\| (\w.+?) \|", table, re.M)]
    assert groups == [section.casefold() for section in cli.sections]


def test_the_sections_of_the_options_are_those_of_the_reference():
    command = COMMANDS["launch"]
    shown = invoke("launch", "--help").stdout
    chapter = REFERENCE.partition("### Options of launch")[2].partition("\n### ")[0]
    _, *parts = re.split(r"^\*\*([^*\n]+)\*\*$", chapter, flags=re.MULTILINE)
    tables = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(tables) == list(command.sections.values())
    assert "\nHelp:\n  --help" in shown
    for heading, table in tables.items():
        section = shown.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
        flags = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", section, re.MULTILINE))
        documented = set(
            re.findall(r"^\| `(?:-\w`, `)?(--[\w-]+)", table, re.MULTILINE)
        )
        assert flags == documented, heading


def test_launch_is_the_default_command():
    for arguments in ((), ("-a", "x"), ("--output-bucket", "cogs")):
        assert_wrong(invoke(*arguments), "cog_pipeline.py launch --help")


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert invoke("--version").stdout == f"cog_pipeline {VERSION}\n"


def test_a_poll_imports_no_other_command():
    code = "import sys, cog_pipeline; cog_pipeline.cli.main(['poll', '--help'], "
    code += "standalone_mode=False); print('cli.pool' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.fixture
def parse_launch(monkeypatch: pytest.MonkeyPatch):
    """Return a function that parses the options of a launch without checks."""

    def parse(*arguments: str) -> Launch:
        command = import_module("cli.launch").launch
        context = command.make_context("launch", [*BUCKETS, *arguments])
        return context.params

    return parse


def test_the_defaults_of_the_options_are_those_of_launch(parse_launch):
    settings = parse_launch()
    for name in ("max_jobs", "max_idle", "max_runs", "disk_floor", "run_order"):
        assert settings[name] == getattr(Launch, name)


def test_former_names_of_options_still_work(parse_launch):
    assert parse_launch("--max-running", "7")["max_jobs"] == 7
    assert parse_launch("-m", "7")["max_jobs"] == 7
    assert parse_launch("--largest-put=7")["max_put"] == 7
    for former, name in FORMER_ORDERS.items():
        assert parse_launch("--order", former)["run_order"] == name
        assert parse_launch(f"--run-order={former}")["run_order"] == name
    for name in RUN_ORDERS:
        assert parse_launch("--order", name)["run_order"] == name
    shown = invoke("launch", "--help").stdout
    for word in ("--max-running", "--order", "--largest-put", "--max-put", "shared"):
        assert word not in shown


def test_an_unknown_run_order_is_refused():
    assert_wrong(invoke(*BUCKETS, "--order", "random"), "'random' is not one of")


def test_other_commands_can_take_the_options_of_the_store(tmp_path: Path):
    @click.command()
    @store_options
    @click.argument("prefix")
    def show(store, prefix: str) -> None:
        click.echo(json.dumps([store.endpoint, str(store.access_key), prefix]))

    key = str(tmp_path / "key")
    arguments = ["-a", key, "-s", key, "-e", "https://S3.Example.org:443/", "maps/"]
    runner = click.testing.CliRunner()
    assert json.loads(runner.invoke(show, arguments).stdout) == [
        "s3.example.org",
        key,
        "maps/",
    ]


@pytest.mark.parametrize(
    ("strictness", "directory", "accepted"),
    [
        *((level, "/home/maps", True) for level in ("0", "1", "3")),
        *(("0", f"/tmp{rest}", True) for rest in ("", "/maps")),
        *((level, "/tmp/maps", False) for level in ("1", "2", "3")),
    ],
)
def test_dagman_accepts_a_log_under_tmp_only_if_not_strict(
    strictness: str, directory: str, accepted: bool
):
    original = queue.htcondor2.param["DAGMAN_USE_STRICT"]
    queue.htcondor2.param["DAGMAN_USE_STRICT"] = strictness
    try:
        assert queue.dagman_accepts(Path(directory)) == accepted
    finally:
        queue.htcondor2.param["DAGMAN_USE_STRICT"] = str(original)
