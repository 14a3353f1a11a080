"""The records of a run: its rows, results and outcome, joined."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from catalog import dates
from catalog.collections import Collection, of_folder
from catalog.record import Dates, Record
from node.result import Result
from post.reconcile import load_outcome
from state import results
from state.launch import Launch
from state.rows import Row, load_header, load_rows
from state.run import Run
from state.text import counted, one_line

# Columns of a manifest that the catalog reads.
_COLLECTION, _MOSAICID = "collection", "mosaicid"
_DATES = ("datetime", "date")
_MOSAICID_FORM = re.compile(r"[0-9a-f]{56}")
# Uploaders write it, and it is in many files.
_MAX_TITLE = 200  # characters
_MAX_SHOWN = 60  # characters
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class _Named(NamedTuple):
    """An image that was processed, as the manifest names it.

    Attributes:
        key: key of the image.
        columns: the values of the columns that the catalog reads, by their titles.
    """

    key: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class _Columns:
    """Where in a row the columns are that the catalog reads."""

    places: Mapping[str, int]

    def of(self, row: Row) -> Mapping[str, str]:
        """Return the values of a row that are not empty."""
        return {
            title: text
            for title, place in self.places.items()
            if place < len(row.fields) and (text := row.fields[place].strip())
        }


def records_of(
    run: Run, launch: Launch, warn: Callable[[str], None]
) -> Iterator[tuple[Collection, Record]]:
    """Yield the record of each image that a run has processed, and its collection.

    Args:
        run: a run that is done.
        launch: the settings with which it began, with the present settings of the
            catalog.
        warn: function that tells people which cells of the manifest count as empty.
    """
    named = _processed(run)
    _check_cells(named.values(), warn)
    counting = _last_successes(run)
    settings = launch.catalog
    dates_in_key = re.compile(settings.datetime_from or "(?!)")
    name_in_key = re.compile(settings.collection_from or "(?!)")
    began = run.began.strftime(_FORMAT)
    for count, (line, result) in enumerate(results.records(run)):
        image = named.get(line)
        if image is None or counting.get(line) != count:
            continue
        cog_key = launch.cog_key(image.key)
        name = (
            image.columns.get(_COLLECTION)
            or _group(name_in_key, image.key)
            or cog_key.removeprefix(launch.output_prefix).rpartition("/")[0]
        )
        collection = of_folder(one_line(name)[:_MAX_TITLE], launch.output_bucket)
        yield (
            collection,
            Record(
                key=cog_key,
                jpeg_key=launch.jpeg_key(image.key),
                source=f"{launch.input_bucket}/{image.key}",
                collection=collection.id,
                manifest=run.manifest_key,
                run=run.id,
                converted=began,
                dates=_dates(image, dates_in_key, result),
                mosaicid=_mosaicid(image.columns.get(_MOSAICID, ""))
                or settings.mosaicid,
                result=result,
            ),
        )


def _processed(run: Run) -> dict[int, _Named]:
    """Return what the manifest says of the rows that were processed, by line."""
    failed = frozenset(load_outcome(run).failed_rows)
    columns = _columns(load_header(run))
    return {
        row.line: _Named(row.key, columns.of(row))
        for row in load_rows(run)
        if row.reason is None and row.line not in failed
    }


def _check_cells(images: Iterable[_Named], warn: Callable[[str], None]) -> None:
    """Tell people which cells of the manifest cannot be read, by one of each column."""
    bad: dict[str, list[str]] = {}
    for image in images:
        for title, text in image.columns.items():
            if title in _READABLE and not _READABLE[title](text):
                bad.setdefault(title, []).append(text)
    for title, texts in bad.items():
        warn(
            f"{counted(len(texts), 'cell')} of the column {title} cannot be read, such "
            f"as {one_line(texts[0])[:_MAX_SHOWN]!r}, and count as empty: "
            "docs/catalog.md says what is understood"
        )


def _columns(header: Iterable[str] | None) -> _Columns:
    known = (_COLLECTION, _MOSAICID, *_DATES)
    titles = [title.strip().lower() for title in header or ()]
    return _Columns({name: titles.index(name) for name in known if name in titles})


def _last_successes(run: Run) -> dict[int, int]:
    """Return which of a run's results counts for each line, counted from 0."""
    each = enumerate(results.records(run, only={"ok"}))
    return {line: count for count, (line, result) in each if result.ok}


def _group(pattern: re.Pattern[str], key: str) -> str:
    match = pattern.search(key)
    return (match["collection"] or "") if match else ""


def _dates(image: _Named, pattern: re.Pattern[str], result: Result) -> Dates | None:
    for title in _DATES:
        if (text := image.columns.get(title)) and (known := dates.of_text(text)):
            return known
    if known := dates.of_key(image.key, pattern):
        return known
    return dates.of_text(result.datetime) if result.datetime else None


def _mosaicid(text: str) -> str:
    """Return the id of a mosaic that a manifest names; empty if it is none."""
    return text.lower() if _MOSAICID_FORM.fullmatch(text.lower()) else ""


# Functions that return something true for a cell that can be read, by its column.
_READABLE: Mapping[str, Callable[[str], object]] = {
    **dict.fromkeys(_DATES, dates.of_text),
    _MOSAICID: _mosaicid,
}
