"""``catalog``: make the products of runs, again or for the first time."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import click

from cli.catalog_options import catalog_options
from cli.common import console, fail, json_option, note, say, use_journal
from cli.runs import runs_argument, runs_of
from state.catalog import CatalogOutcome
from state.exits import Exit
from state.journal import journal_of
from state.launch import CatalogSettings, Launch
from state.run import Run, settings_of
from state.text import counted


@click.command()
@runs_argument
@catalog_options(
    "--products",
    "The products to make: stac, geoparquet, mosaicjson, tileindex, vrt, checksums, "
    "postgis, or all. The default is those of the launch.",
)
@click.option(
    "--whole",
    is_flag=True,
    help="Make everything again, as if nothing were there yet.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Leave out images whose COGs are no longer in the output bucket, or that a "
    "later run has put into another collection.",
)
@json_option
def catalog(
    run_directories: tuple[Path, ...],
    catalog: CatalogSettings,
    whole: bool,
    prune: bool,
    as_json: bool,
) -> None:
    """Make the catalog of runs, again or for the first time.

    \b
      python3 cog_pipeline.py catalog --products stac,geoparquet

    Without RUN_DIRECTORY, it takes all finished runs of the current directory. Options
    that you do not give are those of each run's launch.
    """
    # Other commands need none of its packages.
    from catalog import make

    runs = []
    for run in runs_of(run_directories):
        if not run.done and not run_directories:
            continue
        settings = _with(settings_of(run), catalog)
        if not settings.catalog.products:
            raise click.UsageError(
                f"the launch of {run.directory.name} makes no catalog: name the "
                "products with --products, such as --products stac,geoparquet"
            )
        runs.append((run, settings))
    # Runs of several launches may be in one directory.
    outcomes: dict[str, CatalogOutcome] = {}
    for home, group in groupby(sorted(runs, key=_home), key=_home):
        # Somebody may have removed the directory of a launch that ended.
        home.mkdir(mode=0o700, exist_ok=True)
        journal = use_journal(journal_of(home, note))
        with console.status("making the catalog"):
            outcomes |= make.make(list(group), journal, whole=whole)
    failures = [each.failures for each in outcomes.values()]
    if prune:
        for launch, titles in catalogs_of(runs, outcomes):
            journal = journal_of(launch.home, note)
            images, failed = make.prune(launch, titles, journal)
            failures.append(failed)
            note(f"{counted(images, 'image')} left out")
    if as_json:
        click.echo(json.dumps({name: asdict(each) for name, each in outcomes.items()}))
    elif not outcomes:
        say("No run has ended here: 'status' shows how far each is.")
    if any(failures):
        fail(Exit.REFUSED, "some products could not be made: run the command again")


def catalogs_of(
    runs: Iterable[tuple[Run, Launch]], outcomes: Mapping[str, CatalogOutcome]
) -> Iterator[tuple[Launch, dict[str, str]]]:
    """Yield a launch of each catalog, and titles of its collections by their ids."""
    launches: dict[tuple[str, str, str], Launch] = {}
    titles: dict[tuple[str, str, str], dict[str, str]] = {}
    for run, launch in runs:
        endpoint = launch.store.endpoint
        place = endpoint, launch.output_bucket, launch.output_prefix
        launches[place] = launch
        titles.setdefault(place, {}).update(outcomes[run.directory.name].collections)
    for place, launch in launches.items():
        yield launch, titles[place]


def _home(each: tuple[Run, Launch]) -> Path:
    return each[1].home


def _with(launch: Launch, given: CatalogSettings) -> Launch:
    """Return the settings of a launch, with the options that were given."""
    changes = {name: value for name, value in vars(given).items() if value}
    return replace(launch, catalog=replace(launch.catalog, **changes))
