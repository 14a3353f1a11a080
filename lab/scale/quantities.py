"""What is measured of a run, and how much of it is allowed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.scale.growth import Growth, fit
from lab.scale.idle import Idle
from lab.scale.run import Measured

# A page of a listing tells of so many objects.
_A_PAGE = 1000
# Of requests beside those that list all objects once, and of files of a run.
_A_FEW = 40


@dataclass(frozen=True)
class Quantity:
    """One figure of a step; ``unit`` is what other figures share with it.

    Attributes:
        judged: whether its growth is. That of the seconds a clock tells is not: they
            are those of all that runs on the machine.
    """

    step: str
    unit: str
    of: Callable[[Measured], float]
    judged: bool = True

    @property
    def name(self) -> str:
        return f"{self.step}: {self.unit}"


QUANTITIES = (
    Quantity("poll", "seconds", lambda one: one.poll.seconds, judged=False),
    Quantity("poll", "CPU seconds", lambda one: one.poll.cpu),
    Quantity("poll", "memory", lambda one: one.poll.memory),
    Quantity("poll", "requests", lambda one: one.poll.requests.total()),
    Quantity("gathering", "CPU seconds", lambda one: one.gathering.cpu),
    Quantity("gathering", "memory", lambda one: one.gathering.memory),
    Quantity("reconcile", "seconds", lambda one: one.reconcile.seconds, judged=False),
    Quantity("reconcile", "CPU seconds", lambda one: one.reconcile.cpu),
    Quantity("reconcile", "memory", lambda one: one.reconcile.memory),
    Quantity("reconcile", "requests", lambda one: one.reconcile.requests.total()),
    Quantity("DAGMan", "memory", lambda one: one.dagman),
    Quantity("DAGMan", "bytes of the DAG", lambda one: one.dag),
)
# By rows and by quantity, in seconds and MiB.
BOUNDS: Mapping[int, Mapping[str, float]] = {
    100_000: {
        "poll: seconds": 30,
        "poll: memory": 500,
        "reconcile: seconds": 60,
        "reconcile: memory": 500,
        "DAGMan: memory": 300,
    },
    1_000_000: {
        "poll: seconds": 300,
        "poll: memory": 2000,
        "reconcile: seconds": 600,
        "reconcile: memory": 2000,
        "DAGMan: memory": 3000,
    },
}
_IDLE_SECONDS = 2
# What a process of ours takes that holds nothing, and a page of a listing.
_STREAMED = 128


@dataclass(frozen=True)
class Check:
    """Something that must hold; ``rows``, or objects, is what it was measured at."""

    what: str
    rows: int
    measured: float
    allowed: float

    @property
    def met(self) -> bool:
        return self.measured <= self.allowed


def checks(one: Measured) -> list[Check]:
    """What must hold of a run: seconds and memory where there is a bound."""
    bounds = BOUNDS.get(one.rows, {})
    found = [
        Check(quantity.name, one.rows, quantity.of(one), bounds[quantity.name])
        for quantity in QUANTITIES
        if quantity.name in bounds
    ]
    pages = -(-one.objects // _A_PAGE)
    return [
        *found,
        Check("poll and reconcile: requests", one.rows, one.requests, pages + _A_FEW),
        Check("files in the run directory", one.rows, one.files, _A_FEW),
    ]


def idle_checks(idle: Idle) -> list[Check]:
    objects, among = idle.objects, idle.among
    pages = -(-objects // _A_PAGE)
    seconds, requests = idle.beside.seconds, among.requests.total()
    return [
        Check("idle poll, prefix: seconds", objects, seconds, _IDLE_SECONDS),
        Check("idle poll, no prefix: requests", objects, requests, pages + _A_FEW),
        Check("idle poll, no prefix: memory", objects, among.memory, _STREAMED),
    ]


def growths(measured: Sequence[Measured]) -> dict[Quantity, Growth]:
    """How each quantity grows, where it was measured often enough to tell."""
    fits = {
        quantity: fit({one.rows: quantity.of(one) for one in measured})
        for quantity in QUANTITIES
    }
    return {quantity: growth for quantity, growth in fits.items() if growth}


def is_defect(quantity: Quantity, growth: Growth) -> bool:
    return quantity.judged and growth.is_too_fast
