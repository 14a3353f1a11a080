"""Two charts side by side, both axes logarithmic, as SVG."""

import io

from matplotlib.figure import Figure

from lab.bench.measure import Cost

_LOOKS = {
    "reference": ("#7f7f7f", "s"),
    "cog_pipeline": ("#0b6e4f", "o"),
    "rio-cogeo, lzw, no JPEG": ("#c46200", "^"),
}


def draw(by_side: dict[int, dict[str, list[Cost]]]) -> str:
    """CPU seconds and memory over image size, a line for each way."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    cpu, memory = figure.subplots(1, 2)
    megapixels = [side * side / 1e6 for side in by_side]
    for name, (colour, marker) in _LOOKS.items():
        costs = [ways[name][0] for ways in by_side.values()]
        look = {"color": colour, "marker": marker, "label": name}
        cpu.plot(megapixels, [cost.cpu for cost in costs], **look)
        memory.plot(megapixels, [cost.memory for cost in costs], **look)
    for axes, title in ((cpu, "CPU seconds"), (memory, "memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="megapixels, three bands")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
    cpu.legend()
    drawn = io.StringIO()
    # The same measurements are to make the same file.
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"
