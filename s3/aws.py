"""The hosts of AWS S3, in all of its partitions.

https://docs.aws.amazon.com/general/latest/gr/s3.html lists them.
"""

import re
from dataclasses import dataclass

_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")
_REGION = r"[a-z]{2,3}(?:-[a-z]+)+-\d+"
_HOST = re.compile(
    r"s3(?P<kind>-fips|-accelerate|-external-1)?(?P<dual>\.dualstack)?"
    rf"(?:[.-](?P<region>{_REGION}))?(?P<domain>{'|'.join(map(re.escape, _DOMAINS))})"
)

# People run other stores on virtual machines and behind load balancers.
_ANOTHER_SERVICE = re.compile(r"^ec2-[\d-]+\.|\.elb\.amazonaws\.")


@dataclass(frozen=True)
class AwsHost:
    """A host of AWS S3.

    Attributes:
        region: None if the host serves all regions.
        domain: what follows the region.
        is_plain: whether it has no dual stack, FIPS, acceleration, or VPC.
    """

    region: str | None
    domain: str
    is_plain: bool


def is_aws(host: str) -> bool:
    """Return whether a host is one of AWS.

    >>> is_aws("s3.eu-west-1.amazonaws.com"), is_aws("s3.example.org")
    (True, False)
    """
    return host.endswith(_DOMAINS)


def is_s3(host: str) -> bool:
    """Return whether a host is one of AWS S3, and not a virtual machine or the like.

    >>> is_s3("maps.s3.amazonaws.com"), is_s3("ec2-1-2-3-4.compute.amazonaws.com")
    (True, False)
    """
    return is_aws(host) and not _ANOTHER_SERVICE.search(host)


def parse(host: str) -> AwsHost | None:
    """Return what a host of AWS S3 says of itself; None if it is not one.

    >>> parse("s3-us-west-2.amazonaws.com")
    AwsHost(region='us-west-2', domain='.amazonaws.com', is_plain=True)
    """
    match = _HOST.fullmatch(host)
    if not match:
        return None
    is_plain = not (match["kind"] or match["dual"])
    return AwsHost(match["region"], match["domain"], is_plain)


def current_name(host: str) -> str:
    """Return the present name of a host that has a former one: ``s3-REGION``.

    >>> current_name("s3-us-west-2.amazonaws.com")
    's3.us-west-2.amazonaws.com'
    >>> current_name("s3.example.org")
    's3.example.org'
    """
    parsed = parse(host)
    if parsed and parsed.is_plain and parsed.region:
        return f"s3.{parsed.region}{parsed.domain}"
    return host
