"""Charts side by side, all axes logarithmic, as SVG."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from lab.scale.quantities import BOUNDS, QUANTITIES, Quantity
from lab.scale.run import Measured

_LOOKS = {
    "poll": ("#0b6e4f", "o"),
    "gathering": ("#5e4fa2", "v"),
    "reconcile": ("#c46200", "^"),
    "DAGMan": ("#7f7f7f", "s"),
}
_AXES = {"seconds": "seconds", "memory": "memory, MiB", "requests": "S3 requests"}


def draw(measured: Sequence[Measured]) -> str:
    """Seconds, memory and requests over rows; a short line is what is allowed."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for axes, (unit, title) in zip(figure.subplots(1, 3), _AXES.items(), strict=True):
        for quantity in QUANTITIES:
            if quantity.unit == unit:
                _draw(axes, quantity, measured)
        axes.set(xscale="log", yscale="log", xlabel="rows")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend()
    drawn = io.StringIO()
    # The same measurements are to make the same file.
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def _draw(axes, quantity: Quantity, measured: Sequence[Measured]) -> None:
    colour, marker = _LOOKS[quantity.step]
    rows = [one.rows for one in measured]
    values = [quantity.of(one) for one in measured]
    axes.plot(rows, values, color=colour, marker=marker, label=quantity.step)
    for at, bounds in BOUNDS.items():
        if bound := bounds.get(quantity.name):
            axes.plot([at], [bound], color=colour, marker="_", markersize=18)
