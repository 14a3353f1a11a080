"""What one launch fixed for good: the buckets, the pattern, how to run."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bucket import Bucket, Store
from dag.errors import PipelineError
from dag.files import check_nobody_else_wrote, write_atomically

FILE = "pipeline.json"
SIGNINGS = ("auto", "shadow", "presigned")
ORDERS = ("shared", "oldest-first")
URL_HOURS = 24
# One PUT ends at 5 GiB on AWS and Ceph.
LARGEST_PUT = 4 * 2**30
# What reading a record that is none of ours can raise.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    RecursionError,
)
# A day.
MAX_TIME_LIMIT = 86_400  # seconds
_REPLACED = re.compile(r"r(a(w)?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Pipeline:
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
        order: which of several runs' nodes go first, one of ORDERS.
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
    store: Store
    input_bucket: str
    output_bucket: str
    output_prefix: str = ""
    pattern: str = "*raw.csv"
    every: int = 15
    max_running: int = 10_000
    max_idle: int = 1000
    max_runs: int = 100
    disk_floor: int = 10**9
    order: str = "shared"
    rows_per_job: int = 1
    signing: str = "auto"
    url_seconds: int = URL_HOURS * 3600
    retry_seconds: int = 60
    node_environment: str = "host"
    packed_node: Path | None = None
    submit_options: tuple[str, ...] = ()
    node_options: tuple[str, ...] = ()
    max_time_limit: int = MAX_TIME_LIMIT
    largest_put: int = LARGEST_PUT

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
    def home(self) -> Path:
        """The folder of the launch's own files, crondor's log among them."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        return self.directory / f"pipeline-{self.input_bucket}-{digest}"

    @property
    def file(self) -> Path:
        return self.home / FILE

    @property
    def literal_prefix(self) -> str:
        """What the keys of all manifests begin with, and of what is made of them."""
        literal = re.split(r"[*?\[]", self.pattern, maxsplit=1)[0]
        folder, slash, name = literal.rpartition("/")
        # For "raw" others come, and they end in .csv whatever the manifest did.
        return folder + slash + _REPLACED.sub("", name.partition(".")[0])

    def inputs(self) -> Bucket:
        return Bucket(self.store, self.input_bucket)

    def outputs(self) -> Bucket:
        return Bucket(self.store, self.output_bucket)


def save(pipeline: Pipeline, path: Path) -> None:
    text = json.dumps(asdict(pipeline), indent=2, default=str)
    write_atomically(path, text + "\n")


def load(path: Path) -> Pipeline:
    """Return what ``save`` wrote.

    Raises:
        OthersCanChange: it is not the operator's alone.
        PipelineError: it is not what ``save`` wrote.
    """
    check_nobody_else_wrote(path.parent)
    try:
        return _pipeline(json.loads(path.read_text()))
    except UNREADABLE as error:
        raise PipelineError(
            f"{path} is no pipeline.json of a launch ({type(error).__name__}: {error})"
            ": name the one in its pipeline-… directory, or launch again"
        ) from error


def _pipeline(saved: dict) -> Pipeline:
    store = saved.pop("store")
    for name in ("access_key", "secret_key", "ca_certs"):
        store[name] = Path(store[name]) if store[name] else None
    packed = saved.get("packed_node")
    known = {field.name for field in fields(Pipeline)}
    return Pipeline(
        **{name: value for name, value in saved.items() if name in known}
        | {
            "directory": Path(saved["directory"]),
            "store": Store(**store),
            "packed_node": Path(packed) if packed else None,
            "submit_options": tuple(saved["submit_options"]),
            "node_options": tuple(saved.get("node_options", ())),
        }
    )
