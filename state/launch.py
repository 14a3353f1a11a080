"""What one launch fixed for good: the buckets, the pattern, how to run."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bucket import Bucket, S3Endpoint
from state.errors import PipelineError
from state.files import check_nobody_else_wrote, write_atomically
from state.keys import jpeg_key

FILE = "launch.json"
# Launches and runs of before version 0.1 have their settings under these names.
_FORMER_FILE = "pipeline.json"
_FORMER_HOME = "pipeline"
_FORMER_FIELDS = {
    "max_running": "max_jobs",
    "order": "run_order",
    "largest_put": "max_put",
}
FORMER_ORDERS = {"shared": "fair", "oldest-first": "fifo"}
SIGNINGS = ("auto", "shadow", "presigned")
RUN_ORDERS = ("fair", "fifo")
URL_HOURS = 24
# One PUT ends at 5 GiB on AWS and Ceph.
MAX_PUT = 4 * 2**30
# What reading a record that is none of ours can raise.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    RecursionError,
)
# A day.
MAX_TIME_LIMIT = 86_400  # seconds
_REPLACED = re.compile(r"r(a(w)?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Launch:
    """One launch of the pipeline.

    Attributes:
        directory: where it was launched; its run directories are made there.
        input_bucket: where manifests and images are put.
        output_bucket: where COGs and JPEGs go.
        output_prefix: what is written before every key in the output bucket.
        pattern: which keys of the input bucket are manifests, as a shell pattern.
        every: minutes between two polls.
        max_running: how many nodes of a run are in the queue at once.
        max_idle: how many of them may wait for a machine there.
        max_runs: how many runs may be alive at once.
        disk_floor: how many bytes must be free where it was launched for a run to
            begin; 0 for no such bound.
        run_order: which of several runs' nodes go first, one of RUN_ORDERS.
        rows_per_job: how many rows at most share a node.
        signing: who signs transfers, one of SIGNINGS.
        url_seconds: how long a presigned URL can be used.
        node_environment: where nodes have what they need from: ``host``, ``packed``
            or ``container:`` and an image.
        packed_node: what ``packed`` sends them, made once a launch.
        retry_seconds: how long a reconcile that failed waits for its next attempt.
        submit_options: lines that end every node's submit description.
        node_options: options of bin/generate_cogs.sh for every node.
        max_time_limit: the most that a row may ask for as its time limit, in seconds.
        largest_put: of a COG that is uploaded at once and not in parts, in bytes.
    """

    directory: Path
    store: S3Endpoint
    input_bucket: str
    output_bucket: str
    output_prefix: str = ""
    pattern: str = "*raw.csv"
    every: int = 15
    max_jobs: int = 10_000
    max_idle: int = 1000
    max_runs: int = 100
    disk_floor: int = 10**9
    run_order: str = "fair"
    rows_per_job: int = 1
    signing: str = "auto"
    url_seconds: int = URL_HOURS * 3600
    retry_seconds: int = 60
    node_environment: str = "host"
    packed_node: Path | None = None
    submit_options: tuple[str, ...] = ()
    node_options: tuple[str, ...] = ()
    max_time_limit: int = MAX_TIME_LIMIT
    max_put: int = MAX_PUT

    @property
    def container_image(self) -> str | None:
        """The image that nodes run in, if any."""
        kind, _, image = self.node_environment.partition(":")
        return image if kind == "container" else None

    @property
    def identity(self) -> str:
        """What two launches that would take each other's manifests share."""
        return f"{self.store.endpoint}/{self.input_bucket}/{self.pattern}"

    @property
    def names(self) -> tuple[str, str]:
        """The name of the launch, and the one that earlier versions give it."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        name = f"{self.input_bucket}-{digest}"
        return f"launch-{name}", f"{_FORMER_HOME}-{name}"

    @property
    def home(self) -> Path:
        """The folder of the launch's own files, crondor's log among them."""
        name, former_name = self.names
        former = self.directory / former_name
        return former if former.is_dir() else self.directory / name

    @property
    def file(self) -> Path:
        """The settings of the launch."""
        return settings_file(self.home)

    @property
    def heartbeat_file(self) -> Path:
        """When a poll last succeeded."""
        return self.home / "heartbeat"

    @property
    def literal_prefix(self) -> str:
        """What the keys of all manifests begin with, and of what is made of them."""
        literal = re.split(r"[*?\[]", self.pattern, maxsplit=1)[0]
        folder, slash, name = literal.rpartition("/")
        # For "raw" others come, and they end in .csv whatever the manifest did.
        return folder + slash + _REPLACED.sub("", name.partition(".")[0])

    def cog_key(self, image: str) -> str:
        """Return the key of an image's COG in the output bucket."""
        return self.output_prefix + image

    def jpeg_key(self, image: str) -> str:
        """Return the key of an image's JPEG in the output bucket."""
        return jpeg_key(self.cog_key(image))

    def inputs(self) -> Bucket:
        return Bucket(self.store, self.input_bucket)

    def outputs(self) -> Bucket:
        return Bucket(self.store, self.output_bucket)


def settings_file(folder: Path) -> Path:
    """Return the settings file of a launch's or a run's folder.

    A folder that has one under the former name keeps that name, which the crondor job
    of an earlier version reads.
    """
    former = folder / _FORMER_FILE
    return former if former.exists() else folder / FILE


def settings_files(directory: Path) -> list[Path]:
    """Return the settings files of all launches that were made in a directory."""
    homes = [
        *directory.glob("launch-*"),
        *directory.glob(f"{_FORMER_HOME}-*"),
    ]
    return sorted(file for home in homes if (file := settings_file(home)).exists())


def save_launch(launch: Launch, path: Path) -> None:
    text = json.dumps(asdict(launch), indent=2, default=str)
    write_atomically(path, text + "\n")


def load_launch(path: Path) -> Launch:
    """Return what ``save_launch`` wrote.

    Raises:
        OthersCanChange: it is not the operator's alone.
        PipelineError: it is not what ``save_launch`` wrote.
    """
    check_nobody_else_wrote(path.parent)
    try:
        return _launch(json.loads(path.read_text()))
    except UNREADABLE as error:
        raise PipelineError(
            f"{path} is no {FILE} of a launch ({type(error).__name__}: {error}): name "
            "the one in its launch-… directory, or launch again"
        ) from error


def _launch(saved: dict) -> Launch:
    store = saved.pop("store")
    for name in ("access_key", "secret_key", "ca_certs"):
        store[name] = Path(store[name]) if store[name] else None
    packed = saved.get("packed_node")
    for former, name in _FORMER_FIELDS.items():
        if former in saved:
            saved[name] = saved.pop(former)
    order = saved.get("run_order", "fair")
    known = {field.name for field in fields(Launch)}
    return Launch(
        **{name: value for name, value in saved.items() if name in known}
        | {
            "directory": Path(saved["directory"]),
            "store": S3Endpoint(**store),
            "run_order": FORMER_ORDERS.get(order, order),
            "packed_node": Path(packed) if packed else None,
            "submit_options": tuple(saved["submit_options"]),
            "node_options": tuple(saved.get("node_options", ())),
        }
    )
