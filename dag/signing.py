"""How a node's transfers are signed, so that its keys stay on the access point.

The *shadow*, HTCondor's process for a running job on the access point, signs an
``s3://`` URL when the transfer begins. That is the rule: the signature lives for
an hour, and nothing secret stands in the job. A *presigned* ``https://`` URL
lives for seven days and can be read in the job ad; it serves where the shadow
cannot.
"""

import re
from dataclasses import dataclass

from bucket import Bucket
from dag.manifest import Row, jpeg_key
from dag.pipeline import Pipeline

# From 25.10 to at least 25.14.1 every job with an output to an s3:// URL is
# held, "Attempt to write to illegal sandbox path" (HTCONDOR-3499).
_SHADOW_CANNOT_SIGN_SINCE = (25, 10, 0)
# Characters of a key that mean nothing to a submit description. Some others are
# known to work, but nobody has to know which.
_PLAIN_KEY = re.compile(r"[\w ./+@~:()=&#'-]+")
SHADOW_REFUSES = (
    "the key has characters that HTCondor cannot sign: rename the image, or "
    "launch with --signing auto"
)


@dataclass(frozen=True)
class Urls:
    """Where a node's transfers come from and go to.

    Attributes:
        inputs: the image's, then those of the files beside it.
    """

    inputs: tuple[str, ...]
    cog: str
    jpeg: str


def shadow_signs(pipeline: Pipeline, condor_version: tuple[int, int, int]) -> bool:
    """Whether ``--signing auto`` leaves the signing to HTCondor."""
    if pipeline.signing != "auto":
        return pipeline.signing == "shadow"
    # HTCondor takes a host without a dot for a bucket at AWS, and http for https.
    host = pipeline.store.endpoint.partition(":")[0]
    sound = condor_version < _SHADOW_CANNOT_SIGN_SINCE
    return sound and pipeline.store.secure and "." in host


def shadow_can_sign(pipeline: Pipeline, row: Row) -> bool:
    keys = (row.key, pipeline.output_prefix + row.key, *row.sidecars)
    return all(_PLAIN_KEY.fullmatch(key) for key in keys)


def shadow_urls(pipeline: Pipeline, row: Row) -> Urls:
    base = f"s3://{pipeline.store.endpoint}"
    target = f"{base}/{pipeline.output_bucket}/{pipeline.output_prefix}"
    return Urls(
        inputs=tuple(
            f"{base}/{pipeline.input_bucket}/{key}" for key in (row.key, *row.sidecars)
        ),
        cog=target + row.key,
        jpeg=target + jpeg_key(row.key),
    )


def presigned_urls(inputs: Bucket, outputs: Bucket, prefix: str, row: Row) -> Urls:
    return Urls(
        inputs=tuple(inputs.url_to_read(key) for key in (row.key, *row.sidecars)),
        cog=outputs.url_to_write(prefix + row.key),
        jpeg=outputs.url_to_write(prefix + jpeg_key(row.key)),
    )
