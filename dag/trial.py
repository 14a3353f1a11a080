"""Find out whether HTCondor accepts a job, before anything depends on it.

DAGMan tries for half a minute to submit a job that HTCondor refuses, and then the rows
of that job fail. So a job of the same description is submitted on hold, and removed:
at launch, where the operator can still correct it, and before each DAG.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from condor import queue
from condor.errors import JobRefused
from dag import node_code, render, submit_options
from state.errors import PipelineError
from state.launch import Launch
from state.run import Run, make_folders_of_nodes, timestamp_now


def of_launch(launch: Launch, node: render.Node) -> None:
    """Try the jobs of a run, in a temporary run directory.

    Args:
        node: an example of a node.

    Raises:
        PipelineError: HTCondor refuses a job; the message has HTCondor's own.
        SchedulerError: it accepts no job at the moment.
    """
    code, condor = node_code.keep(launch), queue.version()
    commands = submit_options.of_all_jobs(launch.submit_options)
    try:
        with _temporary_run(launch) as run:
            of_node(run, launch, node)
            render.write_dag(run, launch, [node], condor, code)
            queue.try_dag(run.dag_file, commands)
    except JobRefused as refusal:
        raise PipelineError(
            f"{refusal}. Correct --submit-option or --node-submit-option, or ask the "
            "administrators of this access point what it demands"
        ) from refusal


def of_node(run: Run, launch: Launch, node: render.Node) -> None:
    """Try a node's job.

    Raises:
        JobRefused: HTCondor refuses it.
        SchedulerError: HTCondor accepts no job at the moment.
    """
    code = node_code.keep(launch)
    description = render.node_description(run, launch, queue.version(), code)
    queue.try_node(description, render.macros(node))


@contextmanager
def _temporary_run(launch: Launch) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(dir=launch.home, prefix="trial-") as directory:
        run = Run(
            directory=Path(directory),
            launch=launch.home.name,
            manifest_key="raw.csv",
            etag="",
            modified="",
            timestamp=timestamp_now(),
            token="",
        )
        make_folders_of_nodes(run)
        yield run
