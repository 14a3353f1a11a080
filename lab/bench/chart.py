"""Draw CPU seconds and memory over image size."""

from lab.bench.measure import Cost
from lab.support import charts

# Colour and marker of each method.
_STYLES = {
    "reference": ("#7f7f7f", "s"),
    "cog_pipeline": ("#0b6e4f", "o"),
    "rio-cogeo, lzw, no JPEG": ("#c46200", "^"),
}


def draw(by_side: dict[int, dict[str, list[Cost]]]) -> str:
    """Return two charts as SVG, with a line for each method.

    Args:
        by_side: costs of each method, by the side of the image in pixels.
    """
    figure = charts.new_figure(width=10)
    cpu, memory = figure.subplots(1, 2)
    megapixels = [side * side / 1e6 for side in by_side]
    for name, (colour, marker) in _STYLES.items():
        costs = [methods[name][0] for methods in by_side.values()]
        style = {"color": colour, "marker": marker, "label": name}
        cpu.plot(megapixels, [cost.cpu for cost in costs], **style)
        memory.plot(megapixels, [cost.memory for cost in costs], **style)
    for axes, title in ((cpu, "CPU seconds"), (memory, "memory, MiB")):
        charts.style(axes, title, "megapixels, three bands")
    cpu.legend()
    return charts.to_svg(figure)
