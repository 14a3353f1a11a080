"""The events of a poll, each with its sentence for people.

docs/reference.md lists their names. ``health`` reports some of them, too.
"""

from condor.errors import JobRefused
from condor.queue import Job
from state.errors import PipelineError
from state.journal import Event
from state.run import Run
from state.text import counted
from state.waiting import Waiting


def run_unreadable(error: PipelineError) -> Event:
    """Return the event of a run directory that cannot be read; other runs continue."""
    return Event("run-unreadable", str(error), "error")


def manifest_refused(key: str, reason: str) -> Event:
    """Return the event of a manifest that no run can process."""
    # The key is last, because the end of a long message is not shown.
    message = f"a manifest is not processed, because {reason} ({key})"
    return Event("manifest-refused", message, "warning", {"manifest": key})


def apple_doubles(keys: list[str]) -> Event:
    """Return the event of files that macOS wrote beside manifests."""
    message = (
        f"{len(keys)} files of macOS are not taken for manifests; remove them: "
        + ", ".join(keys)
    )
    return Event("not-manifests", message, facts={"manifests": len(keys)})


def no_room(key: str, reason: str) -> Event:
    """Return the event of a manifest that waits for other runs or for disk."""
    return Event("no-room", f"{key} waits: {reason}", "warning")


def claimed_by_another(key: str, holder: str, claim_key: str) -> Event:
    """Return the event of a manifest that another run has claimed."""
    message = (
        f"{key} is claimed by {holder}; if that is gone for good, another poll takes "
        f"over within a day, or immediately if you remove {claim_key}"
    )
    return Event("claimed-by-another", message, facts={"manifest": key})


def manifest_gone(key: str) -> Event:
    """Return the event of a manifest that disappeared before it was downloaded."""
    message = f"{key} was taken or removed since it was listed"
    return Event("not-claimed", message, facts={"manifest": key})


def may_be_changing(key: str) -> Event:
    """Return the event of a manifest that has other ETags when listed and when read."""
    message = (
        f"{key} is being uploaded, or the store lists it with another ETag than it has "
        "when it is read; the next poll processes it if it has not changed"
    )
    return Event("being-uploaded", message, facts={"manifest": key})


def not_claimed(run: Run) -> Event:
    """Return the event of a run that does not get its manifest."""
    return Event(
        "not-claimed",
        f"{run.manifest_key} was taken, removed or replaced before it was claimed",
    )


def nothing_to_convert(run: Run) -> Event:
    """Return the event of a run with no row that can be converted."""
    message = f"{run.manifest_key}: no row can be converted; see {run.failed_key}"
    return Event("nothing-to-convert", message)


def waits(run: Run, wait: Waiting) -> Event:
    """Return the event of a run that waits for another one."""
    message = (
        f"{run.manifest_key} has images that are being converted: it waits for "
        f"{wait.key} to end"
    )
    return Event("waiting", message)


def submitted(run: Run, rows: int, convertible: int, nodes: int, job: int) -> Event:
    """Return the event of a DAG that is in the queue.

    Args:
        rows: the number of rows of the manifest.
        convertible: the number of rows that the DAG converts.
        nodes: the number of its nodes.
        job: the cluster of its DAGMan.
    """
    message = (
        f"{run.manifest_key}: {counted(rows, 'row')}, {convertible} of them to convert "
        f"in {run.directory.name}, job {job}"
    )
    return Event("submitted", message, facts={"rows": rows, "nodes": nodes, "job": job})


def jobs_refused(run: Run, refusal: JobRefused) -> Event:
    """Return the event of a DAG if HTCondor accepts none of its jobs."""
    message = f"{run.manifest_key}: {refusal}; its rows fail with this reason"
    return Event("jobs-refused", message, "error")


def manifest_restored(run: Run) -> Event:
    """Return the event of a manifest that somebody removed while its run lasts."""
    message = (
        f"{run.processing_key} was removed. The poll has written it again, because it "
        "keeps other access points from converting its images. 'stop' ends the run"
    )
    return Event("manifest-restored", message, "warning")


def dag_left_queue(run: Run) -> Event:
    """Return the event of a DAG that ended without reconciling."""
    message = (
        f"{run.directory.name}: its DAG has left the queue; the poll reconciles it"
    )
    return Event("dag-left-queue", message)


def dagman_released(run: Run, job: Job) -> Event:
    """Return the event of a DAGMan that HTCondor had held and the poll released."""
    return Event(
        "dagman-released",
        f"{run.directory.name}: HTCondor had held its DAGMan job, and this poll "
        f"releases it. The reason of the hold was: {job.hold_reason}",
        "warning",
        {"job": job.cluster},
    )


def dagman_held(run: Run, job: Job) -> Event:
    """Return the event of a DAGMan that a person holds."""
    name = run.directory.name
    message = job.hold_message(f"the DAGMan of {name}", f"release {name}")
    return Event("dagman-held", message, "warning", {"job": job.cluster})


def held(run: Run) -> Event:
    """Return the event of a run that the operator holds before it is submitted."""
    name = run.directory.name
    return Event("held", f"{name} is held; 'release {name}' lets it continue")


def stopped(run: Run) -> Event:
    """Return the event of a run that is ended without jobs, because it was stopped."""
    message = f"{run.manifest_key}: {run.stopped}; the poll writes its CSVs"
    return Event("stopped", message)


def failed(what: str, message: str) -> Event:
    """Return the event of a manifest or run that this poll could not continue."""
    return Event("failed", f"{what}: {message}; the next poll tries again", "error")
