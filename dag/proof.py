"""Proofs that an object was written by an access point, and not by who may upload.

Access points that share a bucket share its keys, and uploaders have others. A proof is
an HMAC (RFC 2104) of what it is about, made with the secret key. It says nothing of
the key, and it cannot be carried over to another object.
"""

import hashlib
import hmac
import json

from bucket import S3Endpoint


def of(store: S3Endpoint, *about: str) -> str:
    """Return the proof of some facts: 64 hexadecimal digits."""
    key = store.secret_key.read_text().strip().encode()
    # As JSON, so that no two lists of facts are one text.
    text = json.dumps(["cog_pipeline", *about]).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def holds(store: S3Endpoint, proof: str, *about: str) -> bool:
    """Return whether a proof is that of these facts."""
    # Half a character, as JSON may have it, is no proof either.
    written = proof.encode(errors="replace")
    return hmac.compare_digest(of(store, *about).encode(), written)
