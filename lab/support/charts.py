"""Draw charts side by side, with logarithmic axes, as SVG."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def new_figure(width: float) -> Figure:
    """Return an empty figure that is ``width`` inches wide."""
    return Figure(figsize=(width, 4.2), layout="constrained")


def style(axes: Axes, title: str, x_label: str, x_format: str = "{x:g}") -> None:
    """Make both axes of a chart logarithmic, and label them."""
    axes.set(xscale="log", yscale="log", xlabel=x_label)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_formatter(x_format)
    axes.yaxis.set_major_formatter("{x:g}")


def to_svg(figure: Figure) -> str:
    """Return a figure as SVG; the same figure gives the same text."""
    svg = io.StringIO()
    # Without a date, the same measurements make the same file.
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in svg.getvalue().splitlines()) + "\n"
