"""``jobs``: the jobs of runs, where they are, and why some are held."""

import csv
import json
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from cli.common import json_option, say
from cli.runs import runs_argument, runs_of
from condor.holds import BY_USER, SUBMITTED_ON_HOLD
from ops.jobs import HeldGroup, Job, held_groups, jobs as jobs_of
from state.text import counted, csv_safe, duration, one_line, printable

_FIELDS = (
    *("run", "job", "node", "image", "images", "state", "since", "machine"),
    *("attempt", "starts", "holds", "hold_code", "hold_subcode", "hold_reason"),
    *("meaning", "remedy"),
)


@click.command()
@runs_argument
@click.option("--csv", "as_csv", is_flag=True, help="Print each job as CSV.")
@json_option
def jobs(run_directories: tuple[Path, ...], as_csv: bool, as_json: bool) -> None:
    """Show the jobs of runs: where they run, how long, and why some are held.

    \b
      python3 cog_pipeline.py jobs workflow-run-20261120T193637Z

    Without a run, take the unfinished runs of the current directory. Idle jobs are
    only counted, except with --csv and --json.
    """
    runs = [run for run in runs_of(run_directories) if not run.done]
    found = jobs_of(runs)
    if as_csv:
        writer = csv.DictWriter(sys.stdout, _FIELDS, lineterminator="\n")
        writer.writeheader()
        for job in found:
            record = _record(job)
            texts = ("image", "machine", "hold_reason")
            writer.writerow(record | {name: csv_safe(record[name]) for name in texts})
        return
    if as_json:
        click.echo(json.dumps([_record(job) for job in found], indent=2))
        return
    for run, of_run in groupby(found, lambda job: job.run):
        _show(run, list(of_run))
    groups = held_groups(found)
    for group in groups:
        _explain(group)
    if any(group.code not in (BY_USER, SUBMITTED_ON_HOLD) for group in groups):
        say(
            "HTCondor tries held jobs again, and gives up at the eighth hold at the "
            "latest."
        )
    counts = Counter(job.state for job in found if job.node or job.hold)
    states = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    total = f"{counted(counts.total(), 'job')} of {counted(len(runs), 'run')}"
    say(f"{total}: {states}." if states else f"{total}.")


def _show(run: str, of_run: list[Job]) -> None:
    """Print the jobs of a run; those that are idle are only counted."""
    say(f"{run}:")
    of_images = [job for job in of_run if job.node]
    for job in of_run:
        # DAGMan, which submits the others, is worth a line only if it is held.
        if job.state != "idle" and (job.node or job.hold):
            click.echo(_line(job))
    idle = [job for job in of_images if job.state == "idle"]
    if idle:
        longest = duration(max(job.duration for job in idle))
        wait = "waits" if len(idle) == 1 else "wait"
        click.echo(
            f"  {counted(len(idle), 'job')} {wait} for a machine, for up to {longest}"
        )
        if len(idle) == len(of_images):
            click.echo(
                f"  'condor_q -better-analyze {idle[0].id}' shows which machines fit"
            )
    if not of_images:
        click.echo("  no job of an image is in the queue")


def _line(job: Job) -> str:
    attempt = f"try {job.attempt}" if job.attempt else ""
    more = f" and {job.images - 1} more" if job.images > 1 else ""
    image = f"{printable(job.image)}{more}" if job.node else "(DAGMan)"
    return (
        f"  {job.id:>8}  {job.state:9} {duration(job.duration):>7}  {attempt:5}  "
        f"{one_line(job.machine):16}  {image}"
    )


def _explain(group: HeldGroup) -> None:
    """Print why jobs are held, and what to do."""
    number = counted(group.jobs, "job")
    explanation = group.explanation
    say(f"{number} held, code {group.code}.{group.subcode}: {explanation.meaning}")
    click.echo(f"  {explanation.remedy}")
    if group.example.hold:
        click.echo(f"  {group.example.id}: {one_line(group.example.hold.reason)}")


def _record(job: Job) -> dict[str, Any]:
    """Return a job for programs; its times are in UTC and ISO 8601."""
    hold, explanation = job.hold, job.explanation
    return {
        "run": job.run,
        "job": job.id,
        "node": job.node,
        "image": job.image,
        "images": job.images,
        "state": job.state,
        "since": job.since.isoformat(),
        "machine": job.machine,
        "attempt": job.attempt,
        "starts": job.starts,
        "holds": job.holds,
        "hold_code": hold and hold.code,
        "hold_subcode": hold and hold.subcode,
        "hold_reason": one_line(hold.reason) if hold else "",
        "meaning": explanation.meaning if explanation else "",
        "remedy": explanation.remedy if explanation else "",
    }
