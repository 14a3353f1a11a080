"""How what was measured grows with the number of rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy

# What measurements of the same may differ by, on a machine that others use.
NOISE = 0.15
_FEWEST = 3
_EXPONENTS = numpy.linspace(0, 3, 301)


@dataclass(frozen=True)
class Growth:
    """A curve ``constant + factor × rows^exponent`` through measurements.

    Attributes:
        linearithmic: the largest deviation, as a share of what was measured, from
            the best ``constant + factor × rows × log rows``.
        most_rows: of those measured.
    """

    constant: float
    factor: float
    exponent: float
    linearithmic: float
    fewest_rows: int
    most_rows: int

    @property
    def is_too_fast(self) -> bool:
        """Whether it grows faster than rows × log rows, beyond what is noise."""
        between = math.log(self.most_rows / self.fewest_rows)
        logs = math.log(self.most_rows) / math.log(self.fewest_rows)
        allowed = 1 + math.log(logs) / between
        return self.exponent > allowed and self.linearithmic > NOISE


def fit(measured: Mapping[int, float]) -> Growth | None:
    """Fit measurements by their numbers of rows; None of fewer than three.

    Each counts by its relative deviation: those of few rows are as telling as those
    of many. Neither constant nor factor is less than nothing.
    """
    if len(measured) < _FEWEST:
        return None
    rows = numpy.array(sorted(measured), dtype=float)
    values = numpy.array([measured[int(each)] for each in rows], dtype=float)
    fits = [(_fit(rows**exponent, values), exponent) for exponent in _EXPONENTS]
    (constant, factor, _, _), exponent = min(fits, key=lambda one: one[0][3])
    *_, linearithmic, _ = _fit(rows * numpy.log(rows), values)
    return Growth(
        constant,
        factor,
        float(exponent),
        linearithmic,
        int(rows[0]),
        int(rows[-1]),
    )


def _fit(
    curve: numpy.ndarray, values: numpy.ndarray
) -> tuple[float, float, float, float]:
    """Constant and factor of a curve, the largest deviation, their squares' sum."""
    scaled = curve / curve[-1]
    best = min(_least_squares(scaled, values), key=lambda one: one[3])
    return best[0], best[1] / float(curve[-1]), best[2], best[3]


def _least_squares(curve: numpy.ndarray, values: numpy.ndarray):
    """With both, with the constant alone, with the factor alone."""
    columns = numpy.stack((numpy.ones_like(curve), curve), axis=1)
    for used in ([0, 1], [0], [1]):
        weighted = columns[:, used] / values[:, None]
        solved, *_ = numpy.linalg.lstsq(weighted, numpy.ones_like(values), rcond=None)
        if (solved < 0).any():
            continue
        both = numpy.zeros(2)
        both[used] = solved
        off = numpy.abs(columns @ both - values) / values
        yield float(both[0]), float(both[1]), float(off.max()), float((off**2).sum())
