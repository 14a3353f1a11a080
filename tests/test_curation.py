"""Warnings show a curator which images may be empty or in the wrong place."""

from pathlib import Path

import numpy
import pytest
from rasterio.transform import from_origin

from tests.support.kinds import HEIGHT, WIDTH, Make, convert, filled, plain

CHANCE = numpy.random.default_rng(0)


def codes(result: dict) -> list[str]:
    return [text.partition(":")[0] for text in result["warnings"]]


def equal_bands(count: int) -> numpy.ndarray:
    return numpy.repeat(CHANCE.integers(0, 255, (1, HEIGHT, WIDTH), "u1"), count, 0)


def without_data() -> numpy.ndarray:
    return numpy.full((1, HEIGHT, WIDTH), numpy.nan, "f4")


SUSPICIOUS: dict[str, tuple[Make, int, str]] = {
    "Swiss coordinates of 1903 as those of 1995": (
        plain(crs="EPSG:2056", transform=from_origin(6e5, 2e5, 1, 1)),
        1,
        "outside-area-of-use",
    ),
    "degrees in a CRS of metres": (
        plain(crs="EPSG:32633", transform=from_origin(12, 50, 0.0003, 0.0003)),
        1,
        "absurd-resolution",
    ),
    "metres in a CRS of degrees": (
        plain(crs="EPSG:4326", transform=from_origin(5e5, 5e6, 10, 10)),
        1,
        "absurd-resolution",
    ),
    "only nodata": (
        filled(numpy.zeros((1, HEIGHT, WIDTH), "u1"), nodata=0),
        1,
        "no-data",
    ),
    "only NaN": (filled(without_data()), 1, "no-data"),
    "one value": (filled(numpy.full((3, HEIGHT, WIDTH), 7, "u1")), 3, "one-value"),
    "one value beside nodata": (
        filled(CHANCE.choice(numpy.array([0, 9], "u1"), (1, HEIGHT, WIDTH)), nodata=0),
        1,
        "one-value",
    ),
    "grey as colour": (filled(equal_bands(3)), 3, "identical-bands"),
    "grey as colour, and infrared": (
        filled(numpy.concatenate([equal_bands(3), 255 - equal_bands(1)])),
        4,
        "identical-bands",
    ),
}


@pytest.mark.parametrize("kind", SUSPICIOUS)
def test_a_suspicious_image_is_converted_with_a_warning(kind: str, tmp_path: Path):
    make, bands, code = SUSPICIOUS[kind]
    status, result, _ = convert(tmp_path, make, bands)
    assert status == 0, result["reason"]
    assert code in codes(result)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:2056", from_origin(2_600_000, 1_200_000, 0.1, 0.1)),
        ("EPSG:32633", from_origin(5e5, 5e6, 0.02, 0.02)),
        ("EPSG:4326", from_origin(0, 90, 360 / WIDTH, 180 / HEIGHT)),
        ("EPSG:3857", from_origin(-2e7, 1e7, 4e7 / WIDTH, 4e7 / WIDTH)),
        # Fiji is on both sides of the antimeridian.
        ("EPSG:3460", from_origin(2_000_000, 4_000_000, 100, 100)),
        ("EPSG:32760", from_origin(7e5, 8_200_000, 300, 300)),
    ],
)
def test_an_image_in_its_place_has_no_warning(crs: str, transform, tmp_path: Path):
    status, result, _ = convert(tmp_path, plain(3, crs=crs, transform=transform), 3)
    assert status == 0, result["reason"]
    assert result["warnings"] == []
