"""How a node's transfers are signed, so that its keys stay on the access point.

The *shadow*, HTCondor's process for a running job on the access point, signs an
``s3://`` URL when the transfer begins. That is the rule: the signature lives for
an hour, and nothing secret stands in the job. A *presigned* ``https://`` URL
lives for hours and can be read in the job ad; it serves where the shadow cannot.
Whoever has one can read that image, or write that COG, until it expires: a store
cannot take it back. So it lives no longer than ``--url-hours``, and jobs that wait
longer for a machine get new ones (submission.renew_urls).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bucket import Bucket
from state.launch import Launch
from state.rows import Row, jpeg_key

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
# A URL among the files that a job reads, or the places that it writes to.
_URL = re.compile(r"https?://[^\s,;]+")
_SIGNATURE = "X-Amz-"


@dataclass(frozen=True)
class TransferUrls:
    """Where a node's transfers come from and go to.

    Attributes:
        inputs: the image's, then those of the files beside it.
    """

    inputs: tuple[str, ...]
    cog: str
    jpeg: str


def shadow_signs(launch: Launch, condor_version: tuple[int, int, int]) -> bool:
    """Whether ``--signing auto`` leaves the signing to HTCondor."""
    if launch.signing != "auto":
        return launch.signing == "shadow"
    # HTCondor takes a host without a dot for a bucket at AWS, and http for https.
    host = launch.store.endpoint.partition(":")[0]
    sound = condor_version < _SHADOW_CANNOT_SIGN_SINCE
    return sound and launch.store.secure and "." in host


def shadow_can_sign(launch: Launch, row: Row) -> bool:
    keys = (row.key, launch.output_prefix + row.key, *row.sidecars)
    return all(_PLAIN_KEY.fullmatch(key) for key in keys)


def shadow_urls(launch: Launch, row: Row) -> TransferUrls:
    base = f"s3://{launch.store.endpoint}"
    target = f"{base}/{launch.output_bucket}/{launch.output_prefix}"
    return TransferUrls(
        inputs=tuple(
            f"{base}/{launch.input_bucket}/{key}" for key in (row.key, *row.sidecars)
        ),
        cog=target + row.key,
        jpeg=target + jpeg_key(row.key),
    )


def presigned_urls(
    inputs: Bucket, outputs: Bucket, prefix: str, row: Row, seconds: int
) -> TransferUrls:
    return TransferUrls(
        inputs=tuple(
            inputs.url_to_read(key, seconds) for key in (row.key, *row.sidecars)
        ),
        cog=outputs.url_to_write(prefix + row.key, seconds),
        jpeg=outputs.url_to_write(prefix + jpeg_key(row.key), seconds),
    )


def renewed(text: str, fresh: Iterable[str]) -> str:
    """Return a text with each presigned URL replaced by the fresh one, if any.

    What a job's attribute holds besides, and its order, stays as it is.

    Args:
        fresh: new URLs; each takes the place of those that differ in their
            signature alone.
    """
    by_object = {_unsigned(url): url for url in fresh}
    return _URL.sub(lambda url: by_object.get(_unsigned(url[0]), url[0]), text)


def _unsigned(url: str) -> str:
    """Return a URL without its signature and the date and life of that."""
    base, _, query = url.partition("?")
    kept = (each for each in query.split("&") if not each.startswith(_SIGNATURE))
    return f"{base}?{'&'.join(kept)}"
