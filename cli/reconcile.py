"""``reconcile``, which DAGMan calls when the nodes of a run have ended."""

import sys
from pathlib import Path

import click

from bucket import BucketError
from cli.common import say, use_journal
from post.reconcile import check_ended, reconcile as reconcile_run
from state.errors import PipelineError, user_message
from state.exits import Exit
from state.journal import Journal
from state.run import count_attempt, load_run, locked, settings_of

# DAGMan makes one each --retry-seconds. After these, the next poll tries.
MAX_ATTEMPTS = 60


@click.command(hidden=True)
@click.argument("run_directory", type=click.Path(exists=True, path_type=Path))
@click.option("--final-node-of", metavar="DAG", help="Set by DAGMan.")
def reconcile(run_directory: Path, final_node_of: str | None) -> None:
    """Write the two CSVs of a run (DAGMan calls this).

    \b
      python3 cog_pipeline.py reconcile workflow-run-20261120T193637Z

    If you call it yourself, it is refused while the DAG of the run is in the queue.
    If rows that shared a job failed, there are no CSVs yet: the next poll submits
    each of these rows again.
    """
    run = load_run(run_directory)
    if not (final_node_of or run.done):
        # Keeps polls from submitting a DAG of this run in the meantime. Without the
        # directory of the launch, there are no polls.
        if run.home.is_dir():
            click.get_current_context().with_resource(locked(run.home))
        check_ended(run)
    journal = use_journal(Journal(say).of_run(run))
    try:
        attempt = count_attempt(run)
    except OSError as error:
        # If the disk is full, DAGMan could not even record the end of this script.
        say(f"{user_message(error) or error}; tried again soon")
        sys.exit(Exit.TRY_AGAIN)
    try:
        reconcile_run(run, settings_of(run), journal, final_node_of)
    except (BucketError, PipelineError, OSError) as error:
        last = attempt >= MAX_ATTEMPTS
        next_step = "the next poll tries again" if last else "tried again soon"
        message = f"attempt {attempt}: {error}; {next_step}"
        journal.say("not-reconciled", message, "warning", attempt=attempt)
        sys.exit(Exit.REFUSED if last else Exit.TRY_AGAIN)
