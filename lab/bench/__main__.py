"""Measure all methods, and write their part of docs/benchmarks.md and its chart."""

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track

# Little is imported here, since the peak memory of a new process includes the memory
# of the process that started it.
from lab.bench.measure import (
    Cost,
    Method,
    median,
    node,
    once,
    reference,
    rio_cogeo,
)
from lab.support.markdown import insert, table
from state.project import PROJECT

PAGE = PROJECT / "docs" / "benchmarks.md"
CHART = PROJECT / "docs" / "benchmarks.svg"
SIDE, SMALL = 10_240, 512
# Sides of the images of the chart: 1 to 900 megapixels.
SIDES = (1_000, 3_200, 10_000, 20_000, 30_000)
MEMORY_SIDE = 60_000

console = Console(highlight=False)
Costs = dict[str, list[Cost]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=5, help="runs of each method; their median counts"
    )
    runs = parser.parse_args().runs
    if not shutil.which("gdal_translate"):
        console.print("The reference is missing: run 'apt-get install gdal-bin' first.")
        sys.exit(1)
    # The system's temporary directory may be in memory, so it is not used.
    with tempfile.TemporaryDirectory(dir=PROJECT, prefix=".bench-") as folder:
        place = Path(folder)
        compared = {bands: _compare(place, SIDE, bands, runs) for bands in (4, 3, 1)}
        small = _compare(place, SMALL, 4, 2 * runs + 1)
        by_side = {side: _compare_side(place, side) for side in SIDES}
        largest = _largest(place)
    page = _page(runs, compared, small, by_side, largest)
    PAGE.write_text(insert(PAGE.read_text(), "bench", page))
    from lab.bench import chart

    CHART.write_text(chart.draw(by_side))
    console.print(page, markup=False)
    console.print(f"Wrote {PAGE.relative_to(PROJECT)} and its chart.")


def _methods(bands: int) -> list[Method]:
    return [
        node(bands),
        node(bands, "--profile", "lzw", name="cog_pipeline, lzw"),
        node(bands, "--profile", "deflate", name="cog_pipeline, deflate"),
        rio_cogeo("lzw"),
        rio_cogeo("zstd"),
    ]


def _compare(place: Path, side: int, bands: int, runs: int) -> Costs:
    """Measure the reference and all methods.

    The runs of the methods alternate, since the speed of the machine changes.
    """
    image = _image(place / "image.tif", side, bands)
    methods = [reference(bands), *_methods(bands)]
    costs: Costs = {method.name: [] for method in methods}
    for _ in track(range(runs), f"{side} x {side} x {bands}", console=console):
        for method in methods:
            costs[method.name].append(once(method, image, place))
    image.unlink()
    return costs


def _image(path: Path, side: int, bands: int) -> Path:
    """Write an image in a process of its own, which takes its memory with it."""
    arguments = (str(path), str(side), str(bands))
    subprocess.run([sys.executable, "-m", "lab.bench.images", *arguments], check=True)
    return path


def _compare_side(place: Path, side: int) -> Costs:
    image = _image(place / "image.tif", side, 3)
    costs = {}
    for method in (reference(3), node(3), rio_cogeo("lzw")):
        console.print(f"{side} x {side} x 3: {method.name}")
        costs[method.name] = [once(method, image, place)]
    image.unlink()
    return costs


def _largest(place: Path) -> Cost:
    """Measure an image of 60,000 by 60,000 by 4.

    The image is compressed; without compression it would be 14 GB.
    """
    small = _image(place / "small.tif", SIDE, 4)
    image = place / "image.tif"
    size = ("-outsize", str(MEMORY_SIDE), str(MEMORY_SIDE), "-r", "nearest")
    stored = ("-co", "COMPRESS=DEFLATE", "-co", "TILED=YES", "-co", "BIGTIFF=YES")
    console.print(f"{MEMORY_SIDE} x {MEMORY_SIDE} x 4")
    subprocess.run(["gdal_translate", "-q", *size, *stored, small, image], check=True)
    small.unlink()
    cost = once(node(4), image, place)
    image.unlink()
    return cost


def _ratio(costs: Costs, name: str) -> float:
    """Return the median, over the runs, of the CPU time relative to the reference's."""
    pairs = zip(costs[name], costs["reference"], strict=True)
    ratios = sorted(cost.cpu / reference.cpu for cost, reference in pairs)
    return ratios[len(ratios) // 2]


def _of_runs(runs: int) -> tuple[str, ...]:
    if runs == 1:
        return ("Each figure is from one run.",)
    return (
        f"Figures are medians of {runs} runs, which alternate with runs of the",
        "reference. Ratios are medians of the ratios of each pair of runs.",
    )


def _page(
    runs: int,
    compared: dict[int, Costs],
    small: Costs,
    by_side: dict[int, Costs],
    largest: Cost,
) -> str:
    four = compared[4]
    node_costs = four["cog_pipeline"]
    cog_bytes = median(node_costs, lambda cost: cost.cog)
    reference_bytes = median(four["reference"], lambda cost: cost.cog)
    check_share = median(node_costs, lambda cost: cost.checked / cost.cpu)
    image_bytes = SIDE * SIDE * 4
    max_scratch = image_bytes / 3 + node_costs[0].cog
    scratch = median(node_costs, lambda cost: cost.scratch) / max_scratch
    goals = (
        ("default profile, whole node, 4 bands", _ratio(four, "cog_pipeline"), 0.25),
        ("the check's share", check_share, 0.15),
        ("LZW for LZW, 4 bands", _ratio(four, "cog_pipeline, lzw"), 0.5),
        ("size of the default COG", cog_bytes / reference_bytes, 0.75),
        (f"{SMALL}² image, whole node", _ratio(small, "cog_pipeline"), 1.0),
        ("peak memory, 60,000 × 60,000 × 4, of 512 MiB", largest.memory / 512, 1.0),
        ("scratch disk, of output + ⅓ input", scratch, 1.0),
    )
    lines = [
        "## The conversion of one image",
        "",
        "`make bench` measures this part again. It takes eight minutes per run. The",
        "reference is what this project replaces: GDAL's",
        "`gdal_translate -of COG -co COMPRESS=LZW`, then a JPEG of quality 80 from",
        "that COG. The images are NASA's Blue Marble and a shaded relief, mirrored to",
        "size.",
        "",
        *_versions(),
        "",
        "CPU seconds are those of all processes, user and system.",
        *_of_runs(runs),
        "",
        "### Goals",
        "",
        *table(
            ("", "measured ×", "at most ×", ""),
            (
                (
                    goal,
                    f"{value:.2f}",
                    f"{bound:.2f}",
                    "" if value <= bound else "missed",
                )
                for goal, value, bound in goals
            ),
        ),
    ]
    for bands, costs in (*compared.items(), (SMALL, small)):
        title = f"{SMALL} × {SMALL} × 4" if bands == SMALL else f"{SIDE}² × {bands}"
        lines += ["", f"### {title}", "", *_costs(costs)]
    lines += [
        "",
        "### By size",
        "",
        "The images have three bands. Each figure is from one run.",
        "",
        "![CPU seconds and memory over image size](benchmarks.svg)",
        "",
        *table(
            ("megapixels", "method", "CPU s", "memory, MiB"),
            (
                (
                    f"{side * side / 1e6:.0f}",
                    name,
                    f"{cost.cpu:.2f}",
                    f"{cost.memory:.0f}",
                )
                for side, costs in by_side.items()
                for name, (cost,) in costs.items()
            ),
        ),
        "",
        "For an image of 60,000 × 60,000 × 4, the node takes "
        f"{largest.cpu:.0f} CPU s and {largest.memory:.0f} MiB.",
    ]
    return "\n".join(lines) + "\n"


def _costs(costs: Costs) -> list[str]:
    rows = (
        (
            name,
            f"{median(runs, lambda cost: cost.cpu):.2f}",
            f"{_ratio(costs, name):.2f}",
            f"{median(runs, lambda cost: cost.memory):.0f}",
            f"{runs[0].cog / 1e6:.1f}",
        )
        for name, runs in costs.items()
    )
    return table(("method", "CPU s", "× reference", "memory, MiB", "COG, MB"), rows)


def _versions() -> list[str]:
    import rasterio
    import zstandard

    gdal = subprocess.run(
        ["gdal_translate", "--version"], capture_output=True, text=True
    )
    rio = subprocess.run(
        [Path(sys.executable).with_name("rio"), "cogeo", "--version"],
        capture_output=True,
        text=True,
    )
    return table(
        ("", "version"),
        (
            ("reference", gdal.stdout.strip()),
            ("rio-cogeo", rio.stdout.strip().rpartition(" ")[2]),
            ("the node's GDAL", rasterio.__gdal_version__),
            ("rasterio", rasterio.__version__),
            ("zstandard", zstandard.__version__),
            ("Python", platform.python_version()),
            ("machine", f"{platform.machine()}, Linux {platform.release()}"),
        ),
    )


if __name__ == "__main__":
    main()
