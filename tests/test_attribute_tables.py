"""Tables of classes beside an image are heeded, and a warning says where they stay."""

from pathlib import Path

import numpy
import pytest
import rasterio

from tests.support.kinds import Make, convert, filled
from tests.support.node import files

CLASSES = numpy.array([10, 7000], "i2")
TABLE = (
    '<GDALRasterAttributeTable{}><FieldDefn index="0"><Name>Value</Name>'
    '<Type>0</Type><Usage>5</Usage></FieldDefn><Row index="0"><F>10</F></Row>'
    "</GDALRasterAttributeTable>"
)
THEMATIC, ATHEMATIC = (f' tableType="{kind}"' for kind in ("thematic", "athematic"))
CATEGORIES = "<CategoryNames><Category>Water</Category></CategoryNames>"


def with_tables(*tables: str) -> Make:
    """Return a maker of an image of two values, of which each band has a table."""

    def make(path: Path) -> None:
        chance = numpy.random.default_rng(0)
        filled(chance.choice(CLASSES, (len(tables), 1200, 1200)))(path)
        bands = "".join(
            f'<PAMRasterBand band="{band}">{table}</PAMRasterBand>'
            for band, table in enumerate(tables, start=1)
        )
        path.with_name(f"{path.name}.aux.xml").write_text(
            f"<PAMDataset>{bands}</PAMDataset>"
        )

    return make


def values_of_overview(directory: Path) -> set[int]:
    with rasterio.open(directory / "image.tif", overview_level=0) as overview:
        return set(numpy.unique(overview.read()).tolist())


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([TABLE.format(THEMATIC)], "raster attribute table"),
        ([TABLE.format("")], "raster attribute table"),
        (["", TABLE.format(THEMATIC)], "raster attribute table"),
        ([CATEGORIES], "category names"),
        ([CATEGORIES + TABLE.format(ATHEMATIC)], "attribute table and category names"),
    ],
)
def test_a_table_of_classes_makes_classes_of_values(
    tables: list[str], words: str, tmp_path: Path
):
    status, result, _ = convert(tmp_path, with_tables(*tables), len(tables))

    assert status == 0, result["reason"]
    assert values_of_overview(tmp_path) == set(CLASSES.tolist())
    (warning,) = result["warnings"]
    assert words in warning and "image.tif.aux.xml" in warning
    assert "image.tif.aux.xml" in files(tmp_path)


def test_a_table_of_ranges_makes_no_classes(tmp_path: Path):
    status, result, _ = convert(tmp_path, with_tables(TABLE.format(ATHEMATIC)), 1)
    assert status == 0, result["reason"]
    assert len(values_of_overview(tmp_path)) > 2
    assert any("raster attribute table" in text for text in result["warnings"])


@pytest.mark.parametrize("table", ["", "<CategoryNames></CategoryNames>"])
def test_without_names_there_is_no_warning(table: str, tmp_path: Path):
    status, result, _ = convert(tmp_path, with_tables(table), 1)
    assert status == 0, result["reason"]
    assert result["warnings"] == []
    assert len(values_of_overview(tmp_path)) > 2


def test_classes_of_a_table_are_warped_to_classes(tmp_path: Path):
    make = with_tables(TABLE.format(THEMATIC))
    status, result, _ = convert(tmp_path, make, 1, "--reproject", "EPSG:4326")
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert set(numpy.unique(raster.read())) <= {0, *CLASSES.tolist()}
