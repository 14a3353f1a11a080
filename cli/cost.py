"""``cost``: the machine time, CPU time and bytes of a run."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.table import Table

from cli import options as shared
from cli.common import console, json_option
from ops import cost as costs
from state.run import load_run


@click.command()
@click.argument("run_directory", type=click.Path(exists=True, path_type=Path))
@shared.price_option("Show what the slot time costs, too.")
@json_option
def cost(run_directory: Path, price: float | None, as_json: bool) -> None:
    """Report what a run cost so far: machine time, CPU time, bytes, money.

    \b
      python3 cog_pipeline.py cost workflow-run-20261120T193637Z

    The average is over the rows that had a job.
    """
    total = costs.cost(load_run(run_directory))
    if as_json:
        money = {} if price is None else {"money": total.money(price)}
        click.echo(json.dumps(asdict(total) | money, indent=2))
        return
    state = "still running"
    if total.processed is not None:
        state = f"{total.processed} processed, {total.failed} failed"
    table = Table(title=f"{run_directory.name}: {total.rows} rows, {state}", box=SIMPLE)
    table.add_column("")
    table.add_column("the run", justify="right")
    table.add_column("the average row", justify="right")
    for line in costs.table(total, price):
        table.add_row(*line)
    console.print(table)
