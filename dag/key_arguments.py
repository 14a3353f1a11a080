"""Find options of a launch that are parts of keys, but that no key can have.

Keys have no scheme, no bucket and no slash in front, but people write them so, because
other tools do.
"""

import re

from bucket import MAX_KEY_BYTES, Bucket

# A regular expression, a path of a shell, or alternatives in braces.
_OTHER_LANGUAGE = re.compile(r"\\[*?.\[]|^[\^~]|^\.\*|\$$|\{[^}]*,")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def pattern_fault(pattern: str, inputs: Bucket) -> str | None:
    """Return why no manifest can match a pattern, and the remedy; None if one can.

    The bucket is asked only about a pattern that begins with its name.
    """
    if fault := _key_fault(pattern):
        return f"the pattern {_shown(pattern)} {fault}"
    if _OTHER_LANGUAGE.search(pattern):
        return (
            f"the pattern {_shown(pattern)} is no pattern of this kind: only *, ? and "
            "[…] have a meaning, so write *raw.csv, for example; if keys really have "
            "these characters, write them in brackets, such as [{]"
        )
    if re.match(rf"[^/]*:{re.escape(inputs.name)}/|{re.escape(inputs.name)}:", pattern):
        return f"the pattern {_shown(pattern)} names the bucket: leave that out"
    folder = f"{inputs.name}/"
    if pattern.startswith(folder) and not any(inputs.list(folder)):
        return (
            f"the pattern {pattern!r} begins with the name of the bucket, in which "
            f"nothing is in a folder of that name: use {pattern.removeprefix(folder)!r}"
        )
    return None


def prefix_fault(option: str, prefix: str) -> str | None:
    """Return why no key can have a prefix, and the remedy; None if one can.

    Args:
        option: the option that gives the prefix.

    >>> prefix_fault("--output-prefix", "cogs/")
    >>> prefix_fault("--output-prefix", "/cogs/")
    "the --output-prefix '/cogs/' begins with '/', and no key does: use 'cogs/'"
    """
    fault = _key_fault(prefix)
    return f"the {option} {_shown(prefix)} {fault}" if fault else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")


def _key_fault(text: str) -> str | None:
    if scheme := _SCHEME.match(text):
        # A bucket follows, or a server and a bucket.
        after = text[scheme.end() :].partition("/")[2]
        remedy = f"use {after!r}" if scheme[0] == "s3://" else "leave both out"
        return f"is a URL, but keys have no {scheme[0]} and no bucket: {remedy}"
    if text.startswith("/"):
        return f"begins with '/', and no key does: use {text.lstrip('/')!r}"
    # The last part of a prefix is the beginning of a name.
    for part in text.split("/")[:-1]:
        if part in ("", ".", ".."):
            return (
                f"has the folder {part!r} in it, which stores and HTCondor do not keep "
                "as it is: leave it out"
            )
    if len(text.encode()) > MAX_KEY_BYTES:
        return f"has more than {MAX_KEY_BYTES} bytes, the maximum for a key: shorten it"
    if not text.isprintable() or text != text.strip():
        return "has spaces around it, or characters that are not printable: correct it"
    return None
