"""Sign the transfers of a node so that its keys stay on the access point.

The *shadow* is HTCondor's process for a running job on the access point. It signs an
``s3://`` URL when the transfer begins. This is the usual way: the signature is valid
for an hour, and the job contains no secret.

A *presigned* ``https://`` URL is valid for hours, and the job ad contains it. It is
used where the shadow cannot sign. Anyone who has it can read that image, or write that
COG, until it expires, and a store cannot revoke it. So it is valid for ``--url-hours``
at most, and jobs that wait longer for a machine get new ones (submission.renew_urls).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bucket import Bucket, S3Endpoint
from s3 import aws
from state.errors import PipelineError
from state.launch import Launch
from state.rows import Row

# From 25.10 to at least 25.14.1, HTCondor holds each job with an output to an s3://
# URL: "Attempt to write to illegal sandbox path" (HTCONDOR-3499).
_SHADOW_CANNOT_SIGN_SINCE = (25, 10, 0)
# Characters of a key that have no meaning in a submit description. Some others are
# known to work, but no key needs to rely on that.
_PLAIN_KEY = re.compile(r"[\w ./+@~:()=&#'-]+")
# A store that serves no other form of URLs: Alibaba Cloud OSS.
_BUCKETS_ARE_HOSTS = ".aliyuncs.com"
_PLAIN_REGION = re.compile(r"[\w-]+", re.ASCII)
SHADOW_REFUSES = (
    "the key has characters that HTCondor cannot sign: rename the image, or "
    "launch with --signing auto"
)
# A URL among the input files or the output destinations of a job.
_URL = re.compile(r"https?://[^\s,;]+")
_SIGNATURE = "X-Amz-"


class CannotSign(PipelineError):
    """HTCondor cannot sign the transfers of a launch that wants it to."""


@dataclass(frozen=True)
class Signer:
    """How HTCondor signs the transfers of a launch.

    Attributes:
        inputs, outputs: the ``s3://`` URLs of the buckets.
        region: the region to sign for, unless the URLs have one.
    """

    inputs: str
    outputs: str
    region: str


@dataclass(frozen=True)
class TransferUrls:
    """The sources and the destinations of a row's transfers.

    Attributes:
        inputs: the URL of the image, then those of its sidecar files.
        cog: the URL that the COG is uploaded to.
        jpeg: the URL that the JPEG is uploaded to.
    """

    inputs: tuple[str, ...]
    cog: str
    jpeg: str


def shadow(
    launch: Launch,
    condor_version: tuple[int, int, int],
    inputs: Bucket,
    outputs: Bucket,
) -> Signer | None:
    """Return how HTCondor signs the transfers of a launch; None if it does not.

    Raises:
        CannotSign: the launch wants it to sign, and it cannot.
        BucketError: the store does not name the region of a bucket.
    """
    if launch.signing == "presigned":
        return None
    is_forced = launch.signing == "shadow"
    if not is_forced and condor_version >= _SHADOW_CANNOT_SIGN_SINCE:
        return None
    host, regions = _host(launch.store), (inputs.region(), outputs.region())
    urls = [
        _bucket_url(launch.store, bucket.name, region)
        for bucket, region in zip((inputs, outputs), regions, strict=True)
    ]
    # A job has one region, which a region in a URL overrides.
    is_one_region = regions[0] == regions[1] or host.endswith(".amazonaws.com")
    are_plain = all(_PLAIN_REGION.fullmatch(region) for region in regions)
    if is_one_region and are_plain and urls[0] and urls[1]:
        return Signer(urls[0], urls[1], regions[0])
    if is_forced:
        raise CannotSign(
            "HTCondor cannot sign transfers of this endpoint and these buckets: "
            "launch with --signing auto"
        )
    return None


def _host(store: S3Endpoint) -> str:
    return store.endpoint.partition(":")[0]


def _bucket_url(store: S3Endpoint, bucket: str, region: str) -> str | None:
    """Return the URL of a bucket, as HTCondor wants it; None if it takes none.

    The forms are those of HTCondor's source, AWSv4-utils.cpp.
    """
    host = _host(store)
    # HTCondor takes a host without a dot for a bucket at AWS, and always uses https.
    if not store.secure or "." not in host:
        return None
    if host.endswith(_BUCKETS_ARE_HOSTS):
        return f"s3://{bucket}.{store.endpoint}"
    if not aws.is_aws(host):
        return f"s3://{store.endpoint}/{bucket}"
    parsed = aws.parse(host)
    # The certificates of AWS are not for buckets with a dot in their name.
    if parsed is None or not parsed.is_plain or "." in bucket:
        return None
    return f"s3://{bucket}.s3.{region}{parsed.domain}"


def shadow_can_sign(launch: Launch, row: Row) -> bool:
    """Return whether HTCondor can sign URLs for all keys of a row."""
    keys = (row.key, launch.cog_key(row.key), *row.sidecars)
    # A folder like '..x' is not signed either (seen with HTCondor 23.9.6).
    return all(_PLAIN_KEY.fullmatch(key) and "/.." not in f"/{key}" for key in keys)


def shadow_urls(signer: Signer, launch: Launch, row: Row) -> TransferUrls:
    """Return the URLs of a row's transfers for HTCondor to sign."""
    return TransferUrls(
        inputs=tuple(f"{signer.inputs}/{key}" for key in (row.key, *row.sidecars)),
        cog=f"{signer.outputs}/{launch.cog_key(row.key)}",
        jpeg=f"{signer.outputs}/{launch.jpeg_key(row.key)}",
    )


def presigned_urls(
    inputs: Bucket, outputs: Bucket, launch: Launch, row: Row
) -> TransferUrls:
    """Return presigned URLs for a row's transfers.

    Args:
        inputs, outputs: the buckets of the launch, which keep their connections.
    """
    seconds, keys = launch.url_seconds, (row.key, *row.sidecars)
    return TransferUrls(
        inputs=tuple(inputs.url_to_read(key, seconds) for key in keys),
        cog=outputs.url_to_write(launch.cog_key(row.key), seconds),
        jpeg=outputs.url_to_write(launch.jpeg_key(row.key), seconds),
    )


def renewed(text: str, new_urls: Iterable[str]) -> str:
    """Return the text of a job's attribute with new presigned URLs.

    Each new URL replaces the one that differs only in its signature. Everything else,
    and the order, stays the same.
    """
    by_object = {_unsigned(url): url for url in new_urls}
    return _URL.sub(lambda url: by_object.get(_unsigned(url[0]), url[0]), text)


def _unsigned(url: str) -> str:
    """Return a URL without its signature, date and lifetime."""
    base, _, query = url.partition("?")
    kept = (part for part in query.split("&") if not part.startswith(_SIGNATURE))
    return f"{base}?{'&'.join(kept)}"
