"""Options come from the command line, from variables, from a file, or by default."""

import json
import os
from pathlib import Path

import click
import pytest

from cli import configuration
from cli.launch import launch
from cog_pipeline import cli
from tests.support.command_line import assert_wrong, invoke

FILE = """\
s3-endpoint = "s3.example.org"
access-key = "keys/access.key"
secret_key = "keys/secret.key"
input-bucket = "maps"
output-bucket = "cogs"
every = 30
in-place = false
submit-option = ["request_memory = 999", "+Project = \\"maps\\""]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder two levels below the file, which is the current one."""
    (tmp_path / "cog_pipeline.toml").write_text(FILE)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def parsed(name: str, *arguments: str) -> click.Context:
    root = click.Context(cli)
    name, command, rest = cli.resolve_command(root, [name, *arguments])
    return command.make_context(name, rest, parent=root)


def shown() -> dict[str, list]:
    result = invoke("config", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_command_takes_its_options_from_the_file(folder: Path):
    options = parsed("launch").params
    assert options["input_bucket"] == "maps"
    assert options["access_key"] == folder / "keys" / "access.key"
    assert options["every"] == 30
    assert options["in_place"] is False
    assert options["submit_options"] == ("request_memory = 999", '+Project = "maps"')
    assert parsed("list").params["input_bucket"] == "maps"


def test_a_variable_overrides_the_file_and_an_option_overrides_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COG_PIPELINE_INPUT_BUCKET", "scans")
    monkeypatch.setenv("COG_PIPELINE_EVERY", "60")
    assert parsed("launch").params["input_bucket"] == "scans"
    assert parsed("launch").params["every"] == 60
    assert parsed("launch", "--every", "5").params["every"] == 5
    assert parsed("manifest").params["input_bucket"] == "scans"


def test_config_shows_where_each_value_comes_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COG_PIPELINE_EVERY", "60")
    values = shown()
    file = str(folder / "cog_pipeline.toml")
    assert values["input-bucket"] == ["maps", file]
    assert values["every"] == [60, "COG_PIPELINE_EVERY"]
    assert values["max-runs"] == [100, "default"]
    assert values["access-key"] == [str(folder / "keys" / "access.key"), file]
    assert "url-seconds" not in values
    table = invoke("config").stdout
    assert max(map(len, table.splitlines())) <= 80
    assert "COG_PIPELINE_EVERY" in table


def test_without_a_file_all_options_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert {source for _, source in shown().values()} == {"default"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("input-buket = 'maps'", "Did you mean 'input-bucket'?"),
        ("input-bucket = ", "is not TOML"),
        ("url-seconds = 5", "not an option of launch"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, text: str, sentence: str):
    (folder / "cog_pipeline.toml").write_text(text)
    assert_wrong(invoke("list"), sentence)


def test_a_file_that_others_can_write_is_refused(folder: Path):
    file = folder / "cog_pipeline.toml"
    file.chmod(0o666)
    result = invoke("list")
    assert result.exit_code == 1
    assert f"chmod go-w {file}" in " ".join(result.stderr.split())


def test_each_variable_is_of_one_option_and_of_no_other_use():
    variables = [configuration.variable_of(o) for o in configuration.options_of(launch)]
    named = [variable for variable in variables if variable]
    assert len(set(named)) == len(named)
    assert not {"COG_PIPELINE_POOL_USER", "COG_PIPELINE_RETRY"} & set(named)
    assert not set(named) & os.environ.keys()
