"""Bring the products of a collection up to date.

Several access points may do this at the same time, and any of them may be interrupted.
The ``state.json`` of a collection says from which records each product was last made,
and who is making products now. It is written on the condition that nobody else has
written it meanwhile. A maker that finds at the end that another one has made the same
product makes it again, from the records that are there now and the state with which it
began. A maker that finds another one that began with an older state makes everything
again, since that one may have left old content behind.

A store without conditional writes cannot refuse the slower of two access points.
Therefore the records are listed once more at the end. Such a store may also show a
state that somebody else is just writing, or that was not written completely. It is read
again, and finally counts as empty. Nothing is lost, because everything is then made
again from the records.
"""

import hashlib
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bucket import ObjectMissing
from catalog import stored
from catalog.products import product
from catalog.records import Records
from catalog.target import Target
from state.errors import PipelineError, user_message
from state.records import VERSION, from_record

# Change it when products of the same records come to have another content.
_FORMAT = 2
_NAME = "state.json"
_TYPE = "application/json"
_MAX_STATE = 64 * 2**20  # bytes
_MAX_TRIES = 8
# Before a state that cannot be read is read again.
_PAUSES = (0.1, 0.3, 0.6, 1.0)  # seconds


@dataclass(frozen=True)
class _Basis:
    """The basis of a product: the records and settings that it was last made of.

    Attributes:
        records: keys and ETags of the objects with the records.
        settings: digest of everything else on which its content depends.
    """

    records: Mapping[str, str]
    settings: str


@dataclass(frozen=True)
class State:
    """The state of a collection.

    Attributes:
        title: its title.
        products: what each product was last made of, by name.
        makers: who is making products or was interrupted, each with a digest of
            ``products`` when it began.
        etag: ETag of the object; empty if there is none.
    """

    title: str = ""
    products: Mapping[str, _Basis] = field(default_factory=dict)
    makers: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""


def update(
    target: Target,
    names: Iterable[str],
    *,
    whole: bool = False,
    explain: Callable[[Exception], str | None] = user_message,
) -> dict[str, str]:
    """Make the products of a collection from all its records.

    Args:
        target: where they go; temporary folders are made in its ``scratch``.
        names: names of the products.
        whole: whether to make everything again, as if there were nothing yet.
        explain: function that returns the message of an error for people; None if the
            error is to be raised.

    Returns:
        Why products could not be made, by their names.

    Raises:
        BucketError: the records cannot be read.
        PipelineError: others change the collection again and again.
    """
    names = tuple(names)
    if not whole and _is_done(target, names):
        return {}
    token = secrets.token_hex(4)
    base: State | None = None
    for attempt in range(_MAX_TRIES):
        begun = _begin(target, token)
        if begun is not None:
            afresh = whole or any(
                digest != _digest(begun.products)
                for maker, digest in begun.makers.items()
                if maker != token
            )
            base = base or begun
            versions = _versions(target)
            before = () if afresh else (base, begun)
            bases, failures = _make(target, names, before, versions, explain)
            gone = {token, *begun.makers} if afresh else {token}
            # Nobody knows the state of a product that could not be made again.
            lost = failures.keys() if afresh else ()
            if _end(target, names, begun, bases, lost, gone) and (
                attempt + 1 == _MAX_TRIES or versions == _versions(target)
            ):
                return failures
            # Others have made the same products, or there are more records now. On a
            # store without conditions, they may have replaced what was made just now.
        time.sleep(0.25 * 2**attempt)
    raise PipelineError(
        f"other access points change the collection {target.collection.title!r} at "
        "the same time: the next poll tries again"
    )


def read_state(target: Target) -> State:
    """Return the state of a collection.

    It is empty if there is none yet, or none that can be read. In the latter case, it
    has the ETag of what is there.
    """
    for pause in (*_PAUSES, None):
        try:
            key = target.prefix + _NAME
            content, etag = target.bucket.read_version(key, _MAX_STATE)
        except ObjectMissing:
            return State()
        try:
            saved = json.loads(content)
            products = saved["products"].items()
            return State(
                str(saved["title"]),
                {name: from_record(_Basis, basis) for name, basis in products},
                dict(saved["makers"]),
                etag,
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            if pause is not None:
                time.sleep(pause)
    return State(etag=etag)


def _is_done(target: Target, names: Iterable[str]) -> bool:
    """Return whether all products are made of the records that are there."""
    state, now = read_state(target), _Basis(_versions(target), _settings(target))
    return not state.makers and all(state.products.get(name) == now for name in names)


def _write(target: Target, state: State) -> bool:
    """Write a state unless somebody else has written one; return whether it was."""
    content: dict[str, Any] = {"version": VERSION, **asdict(state)}
    del content["etag"]
    text, key = json.dumps(content).encode(), target.prefix + _NAME
    if state.etag:
        return target.bucket.write_if_unchanged(key, text, state.etag, _TYPE)
    return target.bucket.write_if_absent(key, text, _TYPE)


def _begin(target: Target, token: str) -> State | None:
    """Record that products are being made; return the state, or None to try again."""
    state = read_state(target)
    # After a conflict, the state from which this maker began stays.
    makers = {token: _digest(state.products), **state.makers}
    if not _write(target, replace(state, title=target.collection.title, makers=makers)):
        return None
    begun = read_state(target)
    return begun if token in begun.makers else None


def _end(
    target: Target,
    names: Iterable[str],
    begun: State,
    bases: Mapping[str, _Basis],
    lost: Collection[str],
    gone: set[str],
) -> bool:
    """Record what was made; return False if somebody else has made the same."""
    for _ in range(_MAX_TRIES):
        state = read_state(target)
        if any(state.products.get(name) != begun.products.get(name) for name in names):
            return False
        makers = {
            maker: digest for maker, digest in state.makers.items() if maker not in gone
        }
        products = {**state.products, **bases}
        products = {name: products[name] for name in products if name not in lost}
        if _write(target, replace(state, products=products, makers=makers)):
            return True
    return False


def _make(
    target: Target,
    names: Iterable[str],
    before: Sequence[State],
    versions: Mapping[str, str],
    explain: Callable[[Exception], str | None],
) -> tuple[dict[str, _Basis], dict[str, str]]:
    """Make products; return their bases, and why others were not made.

    Args:
        before: the first state from which this maker began, and the last one; none to
            make everything again. A product is brought up to date from the first one.
            In the last one are changes that somebody made meanwhile.
    """
    bases: dict[str, _Basis] = {}
    failures: dict[str, str] = {}
    nothing, now = _Basis({}, _settings(target)), _Basis(versions, _settings(target))
    with tempfile.TemporaryDirectory(dir=target.scratch, prefix="catalog-") as folder:
        collected: dict[str, Records] = {}
        for name in names:
            known = [state.products.get(name) for state in before]
            if known and all(basis == now for basis in known):
                continue
            former = nothing
            if all(basis and _is_continued(basis, now) for basis in known):
                former = next(filter(None, known), nothing)
            digest = _digest(former)
            try:
                if digest not in collected:
                    file = Path(folder) / f"{digest}.jsonl"
                    collected[digest] = _collect(target, former, now, file)
                _make_one(name, collected[digest], target, Path(folder))
            except Exception as error:
                if (message := explain(error)) is None:
                    raise
                failures[name] = message
                shutil.rmtree(Path(folder) / name, ignore_errors=True)
            else:
                bases[name] = now
    return bases, failures


def _make_one(name: str, records: Records, target: Target, folder: Path) -> None:
    scratch = folder / name
    scratch.mkdir()
    product(name).write(records, replace(target, scratch=scratch))
    shutil.rmtree(scratch)


def _is_continued(former: _Basis, now: _Basis) -> bool:
    """Return whether a product can be brought up to date from what it was made of."""
    return (
        former.settings == now.settings
        and former.records.items() <= now.records.items()
    )


def _collect(target: Target, former: _Basis, now: _Basis, file: Path) -> Records:
    old = {key: key in former.records for key in now.records}
    from_nothing = not former.records
    records = stored.collected(target.bucket, old, file, from_nothing=from_nothing)
    return replace(records, basis=_digest(now), former_basis=_digest(former))


def _versions(target: Target) -> dict[str, str]:
    return stored.versions(target.bucket, target.root, target.collection.id)


def _settings(target: Target) -> str:
    return _digest([_FORMAT, asdict(target.collection), target.public_url])


def _digest(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
