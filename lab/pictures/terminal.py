"""Run commands in a shell, and draw what a terminal shows of them as SVG."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lab.pictures.programs import ended

_COLUMNS = 100
_STYLES = {r": OK$": "green", r"FAILED|WARNING.*": "bold red"}
# rich asks the web for a font, and a picture in a page gets none.
_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
_FAMILY = "Fira Code, monospace"
_FAMILIES = "DejaVu Sans Mono, Menlo, Consolas, monospace"


def session(
    commands: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Text:
    """Run commands one after the other, and return what a terminal shows.

    ``cd FOLDER`` changes the folder for the commands after it.
    """
    shown = Text()
    for command in commands:
        shown.append(f"$ {command}\n", "bold")
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        done = ended(["bash", "-c", command], folder, environment)
        answer = Text(done.stdout)
        for pattern, style in _STYLES.items():
            answer.highlight_regex(f"(?m){pattern}", style)
        shown.append_text(answer)
    return shown


def to_svg(shown: Text, title: str) -> str:
    """Return a picture of a terminal with this text."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere)
        console.print(shown, end="")
        # With an id that is always the same, the same text makes the same file.
        svg = console.export_svg(title=title, unique_id="terminal")
    svg = _FONT.sub("", svg).replace(_FAMILY, _FAMILIES)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"
