"""The settings of a launch, which stay the same until the next launch."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bucket import Bucket, S3Endpoint
from node import options
from state.errors import PipelineError
from state.files import check_nobody_else_wrote, write_atomically
from state.keys import OutputNames, jpeg_key
from state.moved import moved_from, with_new_paths
from state.records import as_json, from_record

FILE = "launch.json"
# Launches and runs from before version 0.1 have their settings under these names.
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
# Exceptions from reading a record that this program did not write.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    RecursionError,
)
# A day.
MAX_TIME_LIMIT = 86_400  # seconds
# The folders with settings, of launches and runs, begin with these.
_FOLDERS = ("launch-", f"{_FORMER_HOME}-", "workflow-run-")
_REPLACED = re.compile(r"r(a(w)?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class CatalogSettings:
    """The settings of the catalog that a launch makes of its COGs.

    Attributes:
        products: names of the products; empty for no catalog.
        collection_from: regular expression for the keys of images; its group
            ``collection`` is the name of the collection. Empty if the folder is.
        datetime_from: regular expression for the keys of images; its groups are parts
            of the date. Empty if keys have no dates.
        collections_file: the file that describes the collections, None if there is
            none.
        public_url: URL under which people reach the objects of the output bucket;
            empty if they use S3.
        mosaicid: the mosaic to which the COGs are appended; empty for that of their
            collection.
    """

    products: tuple[str, ...] = ()
    collection_from: str = ""
    datetime_from: str = ""
    collections_file: Path | None = None
    public_url: str = ""
    mosaicid: str = ""


@dataclass(frozen=True)
class Launch:
    """One launch of the pipeline.

    Attributes:
        directory: directory of the launch, in which its run directories are created.
        store: the S3 server and the key files.
        input_bucket: bucket with the manifests and the images.
        output_bucket: bucket for the COGs and JPEGs.
        input_prefix: folder of the images, which the keys of outputs do not have.
        output_prefix: prefix for every key in the output bucket.
        strip_prefixes: beginnings of images' names that their COGs do not have.
        output_suffix: what the names of COGs and JPEGs have before .tif and .jpg.
        pattern: shell pattern for the keys of manifests in the input bucket.
        every: time between two polls, in minutes.
        max_jobs: maximum number of jobs of a run in the queue.
        max_idle: maximum number of jobs of a run that wait in the queue for a machine.
        max_runs: maximum number of runs in progress.
        disk_floor: free disk in ``directory`` below which no run starts, in bytes; 0
            for no limit.
        run_order: which run's nodes start first, one of RUN_ORDERS.
        rows_per_job: maximum number of rows that share a job; None if it depends on
            the work of each row.
        signing: who signs transfers, one of SIGNINGS.
        url_seconds: validity of a presigned URL, in seconds.
        retry_seconds: time between two attempts to reconcile a run, in seconds.
        node_environment: where nodes get Python and their packages: ``host``,
            ``packed``, or ``container:`` and an image.
        packed_node: the file that is sent to nodes if ``node_environment`` is
            ``packed``; None otherwise.
        submit_options: lines of submit descriptions: those for all jobs reach the
            crondor job and DAGMan too, the others only nodes.
        node_submit_options: further lines for nodes alone.
        node_options: options of bin/generate_cogs.sh for every node: the values of
            each, by name.
        max_time_limit: the highest time limit that a row can have, in seconds.
        max_put: size above which a COG is uploaded by a multipart upload, in bytes.
        catalog: the settings of the catalog of the COGs.
    """

    directory: Path
    store: S3Endpoint
    input_bucket: str
    output_bucket: str
    input_prefix: str = ""
    output_prefix: str = ""
    strip_prefixes: tuple[str, ...] = ()
    output_suffix: str = ""
    pattern: str = "*raw.csv"
    every: int = 15
    max_jobs: int = 10_000
    max_idle: int = 1000
    max_runs: int = 100
    disk_floor: int = 10**9
    run_order: str = "fair"
    rows_per_job: int | None = None
    signing: str = "auto"
    url_seconds: int = URL_HOURS * 3600
    retry_seconds: int = 60
    node_environment: str = "host"
    packed_node: Path | None = None
    submit_options: tuple[str, ...] = ()
    node_submit_options: tuple[str, ...] = ()
    node_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_time_limit: int = MAX_TIME_LIMIT
    max_put: int = MAX_PUT
    catalog: CatalogSettings = CatalogSettings()

    @property
    def container_image(self) -> str | None:
        """The container image of the nodes, None if they run in no container."""
        kind, _, image = self.node_environment.partition(":")
        return image if kind == "container" else None

    @property
    def in_one_bucket(self) -> bool:
        """Whether images and COGs are in the same bucket."""
        return self.input_bucket == self.output_bucket

    @property
    def identity(self) -> str:
        """The same for two launches that would process each other's manifests."""
        return f"{self.store.endpoint}/{self.input_bucket}/{self.pattern}"

    @property
    def names(self) -> tuple[str, str]:
        """The name of the launch, and its name in earlier versions."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        name = f"{self.input_bucket}-{digest}"
        return f"launch-{name}", f"{_FORMER_HOME}-{name}"

    @property
    def home(self) -> Path:
        """The folder with the files of the launch, such as the log of crondor."""
        name, former_name = self.names
        former = self.directory / former_name
        return former if former.is_dir() else self.directory / name

    @property
    def file(self) -> Path:
        """The file with these settings."""
        return settings_file(self.home)

    @property
    def heartbeat_file(self) -> Path:
        """A file whose modification time is that of the last successful poll."""
        return self.home / "heartbeat"

    @property
    def literal_prefix(self) -> str:
        """The prefix of the keys of all manifests and of the CSVs made from them."""
        return literal_prefix(self.pattern)

    @property
    def output_names(self) -> OutputNames:
        """How outputs are named after their images."""
        return OutputNames(
            self.output_prefix,
            self.strip_prefixes,
            self.output_suffix,
            self.input_prefix,
        )

    def cog_key(self, image: str) -> str:
        """Return the key of an image's COG in the output bucket."""
        return self.output_names.cog_key(image)

    def jpeg_key(self, image: str) -> str:
        """Return the key of an image's JPEG in the output bucket."""
        return jpeg_key(self.cog_key(image))

    def inputs(self) -> Bucket:
        return Bucket(self.store, self.input_bucket)

    def outputs(self) -> Bucket:
        return Bucket(self.store, self.output_bucket)


def literal_prefix(pattern: str) -> str:
    """Return the prefix of all keys that match a pattern, and of their siblings.

    >>> literal_prefix("maps/july*raw.csv")
    'maps/july'
    >>> literal_prefix("maps/july-raw.csv")
    'maps/july-'
    """
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    folder, slash, name = literal.rpartition("/")
    # "raw" is replaced by "processing" and others, and those keys end in .csv, whatever
    # the key of the manifest ends in.
    return folder + slash + _REPLACED.sub("", name.partition(".")[0])


def settings_file(folder: Path) -> Path:
    """Return the settings file of a launch's or a run's folder.

    A folder that has one under the former name keeps that name, which the crondor job
    of an earlier version reads.
    """
    former = folder / _FORMER_FILE
    return former if former.exists() else folder / FILE


def settings_files(directory: Path) -> list[Path]:
    """Return the settings files of all launches that were made in a directory.

    Raises:
        PipelineError: this user may not read a launch.
    """
    homes = [
        *directory.glob("launch-*"),
        *directory.glob(f"{_FORMER_HOME}-*"),
    ]
    try:
        return sorted(file for home in homes if (file := settings_file(home)).exists())
    except PermissionError as error:
        raise PipelineError(
            f"{error.filename} belongs to another user, and you may not read it: use "
            "the account that launched"
        ) from error


def save_launch(launch: Launch, path: Path) -> None:
    write_atomically(path, as_json(launch, indent=2))


def load_launch(path: Path) -> Launch:
    """Return what ``save_launch`` wrote.

    If the directory of the launch was moved, its paths are those of the new place.

    Raises:
        OthersCanChange: it is not the operator's alone.
        PipelineError: it is not what ``save_launch`` wrote, or it is a copy.
    """
    check_nobody_else_wrote(path.parent)
    try:
        return _launch(_where_it_is(json.loads(path.read_text()), path.absolute()))
    except UNREADABLE as error:
        raise PipelineError(
            f"{path} is not the {FILE} of a launch ({type(error).__name__}: {error}): "
            "name the one in its launch-… directory, or launch again"
        ) from error


def _where_it_is(saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return settings with the paths of the place in which their file is now."""
    folder, directory = path.parent, Path(saved["directory"])
    if not folder.name.startswith(_FOLDERS):
        return saved
    if not moved_from(path, directory / folder.name):
        return saved
    return with_new_paths(saved, directory, folder.parent)


def store_from_record(saved: dict[str, Any]) -> S3Endpoint:
    """Return the store that a record describes.

    Raises:
        TypeError: it lacks a field that has no default.
    """
    files = ("access_key", "secret_key", "ca_certs", "session_token")
    paths = {name: Path(saved[name]) for name in files if saved.get(name)}
    return from_record(S3Endpoint, saved, **paths)


def _launch(saved: dict[str, Any]) -> Launch:
    store = store_from_record(saved.pop("store"))
    packed = saved.get("packed_node")
    for former, name in _FORMER_FIELDS.items():
        if former in saved:
            saved[name] = saved.pop(former)
    # Launches that do not have this field were made when each row had a job.
    saved.setdefault("rows_per_job", 1)
    order = saved.get("run_order", "fair")
    catalog = saved.get("catalog", {})
    described = catalog.get("collections_file")
    return from_record(
        Launch,
        saved,
        catalog=from_record(
            CatalogSettings,
            catalog,
            products=tuple(catalog.get("products", ())),
            collections_file=Path(described) if described else None,
        ),
        directory=Path(saved["directory"]),
        store=store,
        run_order=FORMER_ORDERS.get(order, order),
        packed_node=Path(packed) if packed else None,
        strip_prefixes=tuple(saved.get("strip_prefixes", ())),
        submit_options=tuple(saved["submit_options"]),
        node_submit_options=tuple(saved.get("node_submit_options", ())),
        node_options=load_node_options(saved.get("node_options", {})),
    )


def load_node_options(
    saved: dict[str, list[str]] | list[str],
) -> dict[str, tuple[str, ...]]:
    """Return the options of a record, which before version 0.1 were arguments."""
    if isinstance(saved, list):
        return options.from_arguments(saved)
    return {name: tuple(values) for name, values in saved.items()}
