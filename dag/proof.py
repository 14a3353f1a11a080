"""Prove that an access point wrote an object, and not somebody who may only upload.

Access points that share a bucket share its keys; uploaders have other keys. A proof is
an HMAC (RFC 2104) of the facts that it proves, made with the secret key. It reveals
nothing about the key, and it is not valid for another object.
"""

import hashlib
import hmac
import json

from bucket import S3Endpoint
from s3.keys import read_key


def of(store: S3Endpoint, *facts: str) -> str:
    """Return the proof of some facts: 64 hexadecimal digits."""
    key = read_key(store.secret_key).encode()
    # JSON keeps two different lists of facts from becoming the same text.
    text = json.dumps(["cog_pipeline", *facts]).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def is_valid(store: S3Endpoint, proof: str, *facts: str) -> bool:
    """Return whether a proof proves these facts."""
    # JSON can contain half of a surrogate pair, which has no encoding.
    actual = proof.encode(errors="replace")
    return hmac.compare_digest(of(store, *facts).encode(), actual)
