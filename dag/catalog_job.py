"""The job that makes the catalog of runs with very many images."""

from condor import queue
from dag import render
from state.files import write_atomically
from state.journal import Journal
from state.launch import Launch


def submit(launch: Launch, journal: Journal) -> None:
    """Submit the job of a launch, unless it is in the queue already.

    Raises:
        JobRefused, SchedulerError: HTCondor does not accept it.
    """
    if queue.find(queue.CATALOG_ATTRIBUTE, launch.home.name):
        return
    description = render.catalog_job(launch)
    write_atomically(launch.home / "catalog.sub", description)
    cluster = queue.submit(description)
    journal.say(
        "catalog-submitted",
        f"job {cluster} makes the catalog, which has very many images",
        job=cluster,
    )
