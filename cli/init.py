"""``init``: ask for the store and the buckets, check them, write cog_pipeline.toml."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bucket import (
    Bucket,
    BucketError,
    PermanentS3Error,
    S3Endpoint,
    Server,
    check_answers,
)
from cli import configuration, options as shared
from cli.common import console, fail, json_option, note
from dag import launch as launching
from state.errors import PipelineError
from state.exits import Exit
from state.files import check_nobody_else_writes, write_atomically
from state.launch import Launch, literal_prefix

_KEYS = ("access_key", "secret_key")
_STORE = (
    *("s3_endpoint", "insecure_http", "ca_certs", "region"),
    *(*_KEYS, "session_token"),
)
_BUCKETS = (
    *("input_bucket", "input_prefix", "output_bucket", "output_prefix"),
    "pattern",
)
# A list of more buckets would not fit on a screen.
_MAX_NAMES = 20


@click.command(context_settings={"show_default": True})
@shared.store_arguments
@click.option("--input-bucket", metavar="NAME", help="Bucket with the images.")
@click.option("--input-prefix", metavar="FOLDER", help="Folder of the images.")
@click.option("--output-bucket", metavar="NAME", help="Bucket for the COGs and JPEGs.")
@click.option("--output-prefix", metavar="PREFIX", help="Prefix for every output key.")
@click.option(
    "-p",
    "--pattern",
    default=Launch.pattern,
    metavar="PATTERN",
    help="Which keys are manifests. init does not ask for it.",
)
@click.option("--force", is_flag=True, help="Replace existing files without asking.")
@json_option
def init(force: bool, as_json: bool, **given: Any) -> None:
    """Ask for the store and the buckets, and write cog_pipeline.toml.

    \b
      python3 cog_pipeline.py init
      python3 cog_pipeline.py init -e s3.example.org -a access.key -s secret.key \\
          --input-bucket maps --output-bucket cogs --output-prefix ""

    It tries each answer at the store immediately, and asks again if one is wrong. It
    does not ask for what an option sets. Without a terminal, options must set
    everything.

    Keys that you type are written to access.key and secret.key beside the file, which
    only you can read.
    """
    folder = Path.cwd()
    check_nobody_else_writes(folder)
    dialogue = _dialogue(given)
    file = folder / configuration.FILE_NAME
    try:
        if file.exists() and not force:
            dialogue.confirm_replacing(file, "Other options in it are kept.")
        with tempfile.TemporaryDirectory() as private:
            _ask_everything(dialogue, Path(private))
            answers = dialogue.answers
            answers.update(_keep_keys(dialogue, Path(private), folder, force=force))
        configuration.write(file, _values(answers, folder))
    except click.Abort:
        fail(Exit.INTERRUPTED, f"stopped: {file.name} was not written")
    if as_json:
        files = {name: str(answers[name]) for name in _KEYS}
        click.echo(json.dumps({"file": str(file), **files}))
        return
    note(f"Wrote {file}.")
    note("Next, make a manifest of your images, and launch:")
    key = literal_prefix(answers["pattern"]) + "first-raw.csv"
    note(f"  python3 cog_pipeline.py manifest --upload {key}")
    note("  python3 cog_pipeline.py launch")


@dataclass
class _Dialogue:
    """The questions and the answers.

    Attributes:
        answers: values of the options by name; before they are asked, defaults.
        given: names of the options on the command line, which are not asked.
        has_terminal: whether there is somebody to ask.
    """

    answers: dict[str, Any]
    given: set[str]
    has_terminal: bool

    def ask(self, name: str, question: str, *, is_needed: bool = True) -> None:
        """Ask for the value of an option, unless it was given."""
        if not self._is_asked(name, is_needed=is_needed):
            return
        default = self.answers[name] or (None if is_needed else "")
        if default and not is_needed:
            question += ", a space: none"
        answer = click.prompt(question, default=default, show_default=bool(default))
        self.answers[name] = answer.strip()

    def ask_key(self, name: str, question: str, file: Path) -> None:
        """Ask for a key or its file, and write a key that was typed into ``file``."""
        if not self._is_asked(name):
            return
        current = self.answers[name]
        kept = "the same" if current == file else f"that in {current}"
        answer = click.prompt(
            f"{question} [{kept}]" if current else question,
            default="" if current else None,
            show_default=False,
            hide_input=name == "secret_key",
            type=str,
        ).strip()
        if not answer:
            return
        named = os.path.expanduser(answer)  # noqa: PTH111, pathlib refuses a long name
        if os.path.isfile(named):  # noqa: PTH113
            self.answers[name] = Path(named).resolve()
            return
        if answer.startswith(("~/", "./", "../")):
            raise PipelineError(f"there is no file {answer}")
        write_atomically(file, f"{answer}\n")
        self.answers[name] = file

    def _is_asked(self, name: str, *, is_needed: bool = True) -> bool:
        if name in self.given:
            return False
        if not self.has_terminal:
            if is_needed and not self.answers[name]:
                raise click.UsageError(
                    f"missing: {_option(name)}; without a terminal, nothing is asked."
                )
            return False
        return True

    def confirm_replacing(self, file: Path, note: str = "") -> None:
        """Ask whether a file may be replaced; end the command if not."""
        question = f"{file.name} is there already. {note}".strip()
        if self.has_terminal and click.confirm(f"{question} Replace it?"):
            return
        fail(
            Exit.REFUSED,
            f"{file} is there already, and was kept: use --force to replace it",
        )

    def settle(
        self, names: Sequence[str], ask: Callable[[], None], check: Callable[[], None]
    ) -> None:
        """Ask until the answers pass a check.

        Args:
            names: the options that the check is about, which are asked again.
        """
        while True:
            try:
                ask()
                with console.status("checking"):
                    check()
            except (BucketError, PipelineError, click.ClickException) as error:
                if not self.has_terminal:
                    raise
                message = error.message if hasattr(error, "message") else str(error)
                note(f"  {message}")
                self.given.difference_update(names)
            else:
                return


def _dialogue(given: dict[str, Any]) -> _Dialogue:
    context = click.get_current_context()
    named = {
        name
        for name in given
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if shared.DEFAULT_KEYS.is_dir() and not any(given[name] for name in _KEYS):
        given = given | {
            "access_key": shared.DEFAULT_KEYS / "access.key",
            "secret_key": shared.DEFAULT_KEYS / "secret.key",
            "s3_endpoint": given["s3_endpoint"] or shared.DEFAULT_ENDPOINT,
        }
    return _Dialogue(given, named, has_terminal=sys.stdin.isatty())


def _ask_everything(dialogue: _Dialogue, private: Path) -> None:
    """Ask for each option and check it; ``private`` is for keys that have no file."""
    answers = dialogue.answers
    values = {name: answers[name] for name in (*_KEYS, "aws_profile")}
    # Any endpoint will do: it is known only later.
    if keys := shared.keys_of_aws(**values, s3_endpoint="any"):
        written = shared.write_keys(keys, *(private / name for name in _KEYS))
        answers.update(zip(_KEYS, written, strict=True))
        dialogue.given.update(_KEYS)
        note(f"The keys are those of {keys.source}.")

    def store() -> S3Endpoint:
        files = {name: answers[name] or private / name for name in _KEYS}
        values = {name: answers[name] or None for name in _STORE} | files
        endpoint = values.pop("s3_endpoint")
        values["insecure_http"] = bool(answers["insecure_http"])
        return shared.store_of(endpoint=endpoint, **values)

    is_authority_unknown = False

    def ask_endpoint() -> None:
        dialogue.ask("s3_endpoint", "S3 server (HOST[:PORT])")
        if is_authority_unknown:
            answers["ca_certs"] = str(answers["ca_certs"] or "")
            question = "File of the authority that signed its certificate"
            dialogue.ask("ca_certs", question, is_needed=False)
            file = answers["ca_certs"]
            answers["ca_certs"] = Path(file) if file else None

    def check_endpoint() -> None:
        nonlocal is_authority_unknown
        launching.check_endpoint(store())
        try:
            check_answers(store())
        except BucketError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                is_authority_unknown = True
                dialogue.given.discard("ca_certs")
            raise
        answers["s3_endpoint"] = store().endpoint

    def ask_keys() -> None:
        question = "Region, if the server does not name it"
        dialogue.ask("region", question, is_needed=False)
        dialogue.ask_key("access_key", "Access key", private / "access_key")
        dialogue.ask_key("secret_key", "Secret key (hidden)", private / "secret_key")

    def check_keys() -> None:
        shared.check_region(answers["region"] or None)
        launching.check_endpoint(store())
        launching.check_keys(store())
        try:
            names = Server(store()).bucket_names()
        except PermanentS3Error:
            # Keys may be good, and still not be allowed to list all buckets.
            return
        if dialogue.has_terminal and 0 < len(names) <= _MAX_NAMES:
            note(f"  Buckets: {', '.join(names)}")

    def ask_input() -> None:
        dialogue.ask("input_bucket", "Input bucket")
        question = "Folder of the images, if they are in one"
        dialogue.ask("input_prefix", question, is_needed=False)

    def check_input() -> None:
        folder = shared.as_folder(answers["input_prefix"] or "")
        answers["input_prefix"] = folder
        launching.check_names(
            answers["input_bucket"], answers["pattern"], folder=folder
        )
        inputs = Bucket(store(), answers["input_bucket"])
        launching.check_inputs(inputs, answers["pattern"])

    def ask_output() -> None:
        dialogue.ask("output_bucket", "Output bucket")
        question = "Prefix of output keys, if they have one"
        dialogue.ask("output_prefix", question, is_needed=False)

    def check_output() -> None:
        name, prefix = answers["output_bucket"], answers["output_prefix"] or ""
        if name == answers["input_bucket"] and prefix in ("", answers["input_prefix"]):
            raise click.UsageError(
                "input and output bucket are the same: COGs need a prefix of their own"
            )
        launching.check_names(name, prefix=prefix)
        launching.check_permissions(Bucket(store(), name), prefix)

    dialogue.settle(("s3_endpoint", "insecure_http"), ask_endpoint, check_endpoint)
    dialogue.settle(("region", *_KEYS), ask_keys, check_keys)
    dialogue.settle(("input_bucket", "input_prefix"), ask_input, check_input)
    dialogue.settle(("output_bucket", "output_prefix"), ask_output, check_output)


def _keep_keys(
    dialogue: _Dialogue, private: Path, folder: Path, *, force: bool
) -> dict[str, Path]:
    """Write the keys that were typed into the folder; return their files."""
    typed = {
        name: (dialogue.answers[name].read_text(), folder / name.replace("_", "."))
        for name in _KEYS
        if dialogue.answers[name].parent == private
    }
    for text, file in typed.values():
        if file.exists() and file.read_text() != text and not force:
            dialogue.confirm_replacing(file)
    for text, file in typed.values():
        write_atomically(file, text)
    return {name: file for name, (_, file) in typed.items()}


def _values(answers: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what to write: names as in the file; None for what has no value."""
    values: dict[str, Any] = {}
    for name in (*_STORE, *_BUCKETS):
        value = answers[name] or None
        if isinstance(value, Path):
            value = value.expanduser().absolute()
            inside = value.is_relative_to(folder)
            value = str(value.relative_to(folder) if inside else value)
        values[_option(name).removeprefix("--")] = value
    # The key files have the keys of the profile.
    values["aws-profile"] = None
    if values["pattern"] == Launch.pattern:
        values["pattern"] = None
    return values


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
