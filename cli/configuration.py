"""Options of launch from a file and from variables, once for all commands.

The command line takes precedence over the variable COG_PIPELINE_OPTION, and the
variable over the file cog_pipeline.toml in the current folder or the nearest one above
it.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from state import ownership
from state.errors import OthersCanChange, PipelineError
from state.files import write_atomically

FILE_NAME = "cog_pipeline.toml"


def find(folder: Path) -> Path | None:
    """Return the file that counts for a folder; None if there is none."""
    candidates = (each / FILE_NAME for each in (folder, *folder.parents))
    return next((file for file in candidates if file.exists()), None)


def name_of(option: click.Option) -> str:
    """Return the name of an option in the file.

    >>> name_of(click.Option(["-e", "--s3-endpoint"]))
    's3-endpoint'
    """
    return max(option.opts, key=len).removeprefix("--")


def variable_of(option: click.Option) -> str | None:
    """Return the variable that gives an option's value; None if none can.

    >>> variable_of(click.Option(["-e", "--s3-endpoint"]))
    'COG_PIPELINE_S3_ENDPOINT'
    """
    # A variable has one value, and a key can have spaces in it.
    if option.multiple:
        return None
    return "COG_PIPELINE_" + name_of(option).upper().replace("-", "_")


def options_of(command: click.Command) -> Iterator[click.Option]:
    """Yield the options that users can set."""
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            yield option


def apply(
    context: click.Context, name: str, command: click.Command, launch: click.Command
) -> None:
    """Let a command take its options from the file and from variables.

    Args:
        context: of the group that the command is in.
        launch: the command whose options can be set so.

    Raises:
        click.UsageError: the file cannot be read, or names something that is not an
            option.
        OthersCanChange: other users can write it.
    """
    known = {name_of(option): option for option in options_of(launch)}
    own = [option for option in options_of(command) if name_of(option) in known]
    for option in own:
        option.envvar = variable_of(option)
    file = find(Path.cwd())
    if file and own:
        values = _read(file, known)
        chosen = {
            str(option.name): _resolved(option, values[name_of(option)], file)
            for option in own
            if name_of(option) in values
        }
        context.default_map = {name: chosen}


def write(file: Path, values: Mapping[str, Any]) -> None:
    """Write values into a file; keep the other options that it has, not its comments.

    Args:
        values: by the name of the option; None removes it.
    """
    former: dict[str, Any] = {}
    if file.exists():
        former = tomllib.loads(file.read_text("utf-8"))
    former = {name.replace("_", "-"): value for name, value in former.items()}
    kept = {name: value for name, value in former.items() if name not in values}
    lines = [
        f"{name} = {_as_toml(value)}\n"
        for name, value in (*values.items(), *kept.items())
        if value is not None
    ]
    write_atomically(file, "".join(lines))


def _as_toml(value: Any) -> str:
    r"""Return a text, a number, a boolean or a list of these as TOML.

    >>> print(_as_toml(['a "b"', "é\x7f", True, 5]))
    ["a \"b\"", "é\u007f", true, 5]
    """
    # TOML's strings are JSON's, without one control character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def _read(file: Path, known: Iterable[str]) -> dict[str, Any]:
    try:
        if fault := next(ownership.faults(file), None):
            raise OthersCanChange(
                f"{fault}. Until then {file} is not read, because it decides where "
                "your keys and images go"
            )
        with file.open("rb") as opened:
            values = tomllib.load(opened)
    except OSError as error:
        raise PipelineError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(f"{file} is not TOML: {error}") from error
    values = {name.replace("_", "-"): value for name, value in values.items()}
    for name in values:
        if name not in known:
            matches = get_close_matches(name, known, n=1)
            hint = f" Did you mean {matches[0]!r}?" if matches else ""
            raise click.UsageError(
                f"{file}: {name!r} is not an option of launch.{hint}"
            )
    return values


def _resolved(option: click.Option, value: Any, file: Path) -> Any:
    """Return a value for click, which takes texts; files are beside the file."""
    if isinstance(value, list):
        return [str(each) for each in value]
    if isinstance(option.type, click.Path):
        return str(file.parent / Path(str(value)).expanduser())
    return value if isinstance(value, bool) else str(value)
