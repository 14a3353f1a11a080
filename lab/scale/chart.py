"""Draw seconds, memory and requests over the number of rows."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from lab.scale.quantities import BOUNDS, QUANTITIES, Quantity
from lab.scale.run import RunCost
from lab.support import charts

# Colour and marker of each step.
_STYLES = {
    "poll": ("#0b6e4f", "o"),
    "gathering": ("#5e4fa2", "v"),
    "reconcile": ("#c46200", "^"),
    "status": ("#b8860b", "D"),
    "validate --quick": ("#1f78b4", "x"),
    "DAGMan": ("#7f7f7f", "s"),
}
_TITLES = {"seconds": "seconds", "memory": "memory, MiB", "requests": "S3 requests"}


def draw(costs: Sequence[RunCost]) -> str:
    """Return three charts as SVG; a short horizontal line is an upper bound."""
    figure = charts.new_figure(width=12)
    for axes, (unit, title) in zip(figure.subplots(1, 3), _TITLES.items(), strict=True):
        for quantity in QUANTITIES:
            if quantity.unit == unit:
                _draw(axes, quantity, costs)
        charts.style(axes, title, "rows", "{x:,.0f}")
        axes.legend()
    return charts.to_svg(figure)


def _draw(axes: Axes, quantity: Quantity, costs: Sequence[RunCost]) -> None:
    colour, marker = _STYLES[quantity.step]
    rows = [cost.rows for cost in costs]
    values = [quantity.of(cost) for cost in costs]
    axes.plot(rows, values, color=colour, marker=marker, label=quantity.step)
    for bounded_rows, bounds in BOUNDS.items():
        if bound := bounds.get(quantity.name):
            axes.plot([bounded_rows], [bound], color=colour, marker="_", markersize=18)
