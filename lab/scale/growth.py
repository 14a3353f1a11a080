"""Estimate how a measured quantity grows with the number of rows."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy

# Repeated measurements may differ by this share, as others use the machine too.
NOISE = 0.15
_MIN_MEASUREMENTS = 3
_EXPONENTS = numpy.linspace(0, 3, 301)


@dataclass(frozen=True)
class Growth:
    """A curve ``constant + factor × rows^exponent`` through measurements.

    Attributes:
        linearithmic_error: largest deviation from the best curve
            ``constant + factor × rows × log rows``, as a share of the measurement.
        min_rows: smallest number of rows that was measured.
        max_rows: largest number of rows that was measured.
    """

    constant: float
    factor: float
    exponent: float
    linearithmic_error: float
    min_rows: int
    max_rows: int

    @property
    def is_too_fast(self) -> bool:
        """Return whether it grows faster than rows × log rows, beyond the noise."""
        log_range = math.log(self.max_rows / self.min_rows)
        log_ratio = math.log(self.max_rows) / math.log(self.min_rows)
        max_exponent = 1 + math.log(log_ratio) / log_range
        return self.exponent > max_exponent and self.linearithmic_error > NOISE


@dataclass(frozen=True)
class _Fit:
    """A curve ``constant + factor × curve`` through measurements.

    Attributes:
        max_error: largest relative deviation.
        squares: sum of the squares of the relative deviations.
    """

    constant: float
    factor: float
    max_error: float
    squares: float


def fit(values_by_rows: Mapping[int, float]) -> Growth | None:
    """Fit a curve to measurements by number of rows.

    Deviations are relative, so that measurements of few rows count as much as those
    of many. Constant and factor are not negative.

    Returns:
        The curve; None for less than three measurements, or if one of them is 0.
    """
    if len(values_by_rows) < _MIN_MEASUREMENTS or 0 in values_by_rows.values():
        return None
    rows = numpy.array(sorted(values_by_rows), dtype=float)
    values = numpy.array([values_by_rows[int(each)] for each in rows], dtype=float)
    fits = [(_fit(rows**exponent, values), exponent) for exponent in _EXPONENTS]
    best, exponent = min(fits, key=lambda pair: pair[0].squares)
    return Growth(
        best.constant,
        best.factor,
        float(exponent),
        _fit(rows * numpy.log(rows), values).max_error,
        int(rows[0]),
        int(rows[-1]),
    )


def _fit(curve: numpy.ndarray, values: numpy.ndarray) -> _Fit:
    """Return the best fit of a curve."""
    scale = float(curve[-1])
    best = min(_fits(curve / scale, values), key=lambda one: one.squares)
    return replace(best, factor=best.factor / scale)


def _fits(curve: numpy.ndarray, values: numpy.ndarray) -> Iterator[_Fit]:
    """Yield the fits with constant and factor, the constant alone, the factor alone."""
    columns = numpy.stack((numpy.ones_like(curve), curve), axis=1)
    for used in ([0, 1], [0], [1]):
        weighted = columns[:, used] / values[:, None]
        solution, *_ = numpy.linalg.lstsq(weighted, numpy.ones_like(values), rcond=None)
        if (solution < 0).any():
            continue
        both = numpy.zeros(2)
        both[used] = solution
        errors = numpy.abs(columns @ both - values) / values
        yield _Fit(
            float(both[0]),
            float(both[1]),
            float(errors.max()),
            float((errors**2).sum()),
        )
