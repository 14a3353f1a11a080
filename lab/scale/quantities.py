"""Define the measured quantities of a run, and their upper bounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.scale.growth import Growth, fit
from lab.scale.idle import IdleCosts
from lab.scale.run import RunCost

_OBJECTS_PER_PAGE = 1000
# Upper bound of the requests beside those that list all objects once.
_MAX_OTHER_REQUESTS = 40
_MAX_FILES = 40


@dataclass(frozen=True)
class Quantity:
    """A measured quantity of a step of a run.

    Attributes:
        unit: unit of its value; seconds, memory and requests have a chart each.
        of: function that returns its value.
        growth_counts: whether a growth that is too fast is a defect. Elapsed time
            does not count, since it depends on everything that runs on the machine.
    """

    step: str
    unit: str
    of: Callable[[RunCost], float]
    growth_counts: bool = True

    @property
    def name(self) -> str:
        return f"{self.step}: {self.unit}"


QUANTITIES = (
    Quantity("poll", "seconds", lambda cost: cost.poll.seconds, growth_counts=False),
    Quantity("poll", "CPU seconds", lambda cost: cost.poll.cpu),
    Quantity("poll", "memory", lambda cost: cost.poll.memory),
    Quantity("poll", "requests", lambda cost: cost.poll.requests.total()),
    Quantity("gathering", "CPU seconds", lambda cost: cost.gathering.cpu),
    Quantity("gathering", "memory", lambda cost: cost.gathering.memory),
    Quantity("status", "CPU seconds", lambda cost: cost.status.cpu),
    Quantity("status", "memory", lambda cost: cost.status.memory),
    Quantity("status", "requests", lambda cost: cost.status.requests.total()),
    Quantity(
        "reconcile", "seconds", lambda cost: cost.reconcile.seconds, growth_counts=False
    ),
    Quantity("reconcile", "CPU seconds", lambda cost: cost.reconcile.cpu),
    Quantity("reconcile", "memory", lambda cost: cost.reconcile.memory),
    Quantity("reconcile", "requests", lambda cost: cost.reconcile.requests.total()),
    Quantity("validate --quick", "CPU seconds", lambda cost: cost.validate.cpu),
    Quantity("validate --quick", "memory", lambda cost: cost.validate.memory),
    Quantity(
        "validate --quick", "requests", lambda cost: cost.validate.requests.total()
    ),
    Quantity("DAGMan", "memory", lambda cost: cost.dagman),
    Quantity("DAGMan", "bytes of the DAG", lambda cost: cost.dag),
)
# Upper bounds by number of rows and by quantity, in seconds and MiB.
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
_MAX_IDLE_SECONDS = 2
# Enough, in MiB, for a process that has one page of a listing in memory.
_MAX_IDLE_MEMORY = 128


@dataclass(frozen=True)
class Check:
    """A value with an upper bound; ``rows`` is a number of rows or objects."""

    name: str
    rows: int
    value: float
    bound: float

    @property
    def met(self) -> bool:
        return self.value <= self.bound


def checks(cost: RunCost) -> list[Check]:
    """Return the checks of a run; time and memory have bounds for some sizes only."""
    bounds = BOUNDS.get(cost.rows, {})
    rows, max_requests = cost.rows, _max_requests(cost.objects)
    return [
        *(
            Check(quantity.name, rows, quantity.of(cost), bounds[quantity.name])
            for quantity in QUANTITIES
            if quantity.name in bounds
        ),
        Check("poll and reconcile: requests", rows, cost.requests, max_requests),
        Check("files in the run directory", rows, cost.files, _MAX_FILES),
    ]


def idle_checks(idle: IdleCosts) -> list[Check]:
    """Return the checks of the idle polls."""
    objects, memory = idle.objects, idle.without_prefix.memory
    seconds = idle.with_prefix.seconds
    requests = idle.without_prefix.requests.total()
    max_requests = _max_requests(objects)
    return [
        Check("idle poll, prefix: seconds", objects, seconds, _MAX_IDLE_SECONDS),
        Check("idle poll, no prefix: requests", objects, requests, max_requests),
        Check("idle poll, no prefix: memory", objects, memory, _MAX_IDLE_MEMORY),
    ]


def _max_requests(objects: int) -> int:
    pages = -(-objects // _OBJECTS_PER_PAGE)
    return pages + _MAX_OTHER_REQUESTS


def growths(costs: Sequence[RunCost]) -> dict[Quantity, Growth]:
    """Return the growth of each quantity that was measured often enough."""
    fits = {
        quantity: fit({cost.rows: quantity.of(cost) for cost in costs})
        for quantity in QUANTITIES
    }
    return {quantity: growth for quantity, growth in fits.items() if growth}


def is_defect(quantity: Quantity, growth: Growth) -> bool:
    """Return whether a quantity grows too fast, and its growth counts."""
    return quantity.growth_counts and growth.is_too_fast
