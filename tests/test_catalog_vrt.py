"""The VRT of a collection shows the pixels of its COGs."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.windows import from_bounds

from bucket import ObjectMissing
from catalog import vrt
from catalog.record import Record
from tests.support import rasters, raw_tiff
from tests.support.mosaics import (
    Served,
    masked_pair,
    record_of,
    records_of,
    served,
)
from tests.support.seaweedfs import SeaweedFS

KEY = "catalog/1937/mosaic.vrt"
EAST = from_origin(310_000, 4_800_000, 10, 10)


@pytest.fixture
def s3(tmp_path: Path, weed: SeaweedFS) -> Iterator[Served]:
    with served(tmp_path, weed.store) as running:
        yield running


def write(s3: Served, directory: Path, *records: Record) -> None:
    vrt.write(records_of(records, directory), s3.target(directory / "scratch"))


def window_of(record: Record, mosaic: rasterio.DatasetReader):
    window = from_bounds(*record.result.bounds, mosaic.transform)
    return window.round_offsets().round_lengths()


def same_as_cog(s3: Served, record: Record, mosaic: rasterio.DatasetReader) -> bool:
    """Return whether a mosaic has the pixels of a COG, in its own grid."""
    pixels = s3.pixels(record)
    shown = mosaic.read(window=window_of(record, mosaic))
    return numpy.array_equal(shown, pixels, equal_nan=pixels.dtype.kind == "f")


@pytest.mark.parametrize("server", ["SeaweedFS", "rclone"])
def test_it_shows_what_gdalbuildvrt_and_the_cogs_show(
    tmp_path: Path, weed: SeaweedFS, server: str
):
    with served(tmp_path, weed.store, by=server) as s3:
        records = [
            s3.convert("1937/a & sheet (1).tif"),
            s3.convert("1937/<b>.tif", transform=EAST),
        ]
        write(s3, tmp_path, *records)
        with rasterio.open(s3.path(KEY)) as mosaic:
            assert mosaic.crs == CRS.from_epsg(32616)
            assert [color.name for color in mosaic.colorinterp] == [
                *("red", "green", "blue")
            ]
            assert all(same_as_cog(s3, record, mosaic) for record in records)
            mask = mosaic.dataset_mask()
            assert mask[:, :700].all()
            assert mask[:, 1000:].all()
            assert not mask[:, 700:1000].any()
        # Debian's GDAL is of another generation than rasterio's.
        local = str(tmp_path / "built.vrt")
        s3.run("gdalbuildvrt", "-q", local, *[s3.path(r.key) for r in records])
        built = s3.run("gdalinfo", "-checksum", local).split("Origin")[1]
        ours = s3.run("gdalinfo", "-checksum", s3.path(KEY)).split("Origin")[1]
        assert [line for line in built.splitlines() if "Checksum" in line] == [
            line for line in ours.splitlines() if "Checksum" in line
        ]
        assert built.splitlines()[:2] == ours.splitlines()[:2]


def test_no_image_is_opened_to_open_the_mosaic(s3: Served, tmp_path: Path):
    write(s3, tmp_path, record_of("not/there.tif"))
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert (mosaic.shape, mosaic.res) == ((600, 700), (10, 10))
        assert mosaic.dtypes == ("uint8",) * 3
    assert "Size is 700, 600" in s3.run("gdalinfo", s3.path(KEY))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", numpy.nan),
        ("float64", -1e300),
        ("int16", -32768),
        ("uint32", 2**32 - 1),
        ("int64", None),
        ("complex64", None),
    ],
)
def test_each_type_keeps_its_values_and_its_no_data(
    s3: Served, tmp_path: Path, dtype: str, nodata: float | None
):
    values = (numpy.arange(300 * 300) % 10_000).reshape(1, 300, 300).astype(dtype)
    values += numpy.iinfo(dtype).max // 2 if values.dtype.kind in "iu" else 0
    if nodata is not None:
        values[:, :100] = nodata
    file = tmp_path / "a.tif"
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        dtype=dtype,
        nodata=nodata,
        count=1,
        width=300,
        height=300,
        crs="EPSG:32616",
        transform=rasters.TRANSFORM,
    ) as raster:
        raster.write(values)
    record = s3.convert(f"{dtype}/a.tif", 1, file=file)
    write(s3, tmp_path, record, elsewhere(record))
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert mosaic.dtypes == (dtype,)
        assert same_as_cog(s3, record, mosaic)
        valid = mosaic.read_masks(1, window=window_of(record, mosaic)).astype(bool)
        assert valid[100:].all()
        assert valid[:100].any() == (nodata is None)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("i8", -(2**63)), ("i8", 2**53 + 1), ("u8", 2**64 - 1), ("u8", 0)],
)
def test_integers_of_64_bits_that_mean_no_data_are_exact(
    s3: Served, tmp_path: Path, dtype: str, nodata: int
):
    # GDAL must not take its first digit for it, nor the double that is nearest to it.
    values = numpy.array((-9 if dtype == "i8" else 1, 2**53), dtype).repeat(150 * 300)
    values = values.reshape(300, 300)
    values[:100] = nodata
    raw_tiff.write_integers(tmp_path / "a.tif", values, nodata)
    record = s3.convert("integers/a.tif", 1, file=tmp_path / "a.tif")
    write(s3, tmp_path, record)
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert same_as_cog(s3, record, mosaic)
        valid = mosaic.read_masks(1).astype(bool)
    assert valid[100:].all()
    assert not valid[:100].any()


def elsewhere(record: Record) -> Record:
    """Return a record of an image that is elsewhere, and of which nothing is read."""
    a, b, c, d, e, f = record.result.transform
    moved = replace(record.result, transform=(a, b, c + 100 * a, d, e, f + 4000 * e))
    return replace(record, key="elsewhere.tif", result=moved)


def test_an_image_with_a_mask_lets_the_one_below_it_show(s3: Served, tmp_path: Path):
    above, below = masked_pair(s3, tmp_path)
    write(s3, tmp_path, above, below)
    with rasterio.open(s3.path(KEY)) as mosaic:
        shown = mosaic.read()
        assert (shown[:, :, :340] == s3.pixels(below)[:, :, :340]).all()
        assert (shown[:, :, 360:] == s3.pixels(above)[:, :, 360:]).all()
        assert mosaic.dataset_mask().all()


def test_alpha(s3: Served, tmp_path: Path):
    options = {"photometric": "RGB", "alpha": "yes"}
    record = s3.convert("alpha/a.tif", 4, **options)
    write(s3, tmp_path, record)
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert mosaic.colorinterp[3].name == "alpha"
        shown, pixels = mosaic.read(), s3.pixels(record)
        opaque = pixels[3] > 0
        assert (shown[:, opaque] == pixels[:, opaque]).all()


def test_palettes_become_colours(s3: Served, tmp_path: Path):
    file = tmp_path / "a.tif"
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        width=300,
        height=300,
        crs="EPSG:32616",
        transform=rasters.TRANSFORM,
    ) as raster:
        raster.write(numpy.full((1, 300, 300), 7, "uint8"))
        raster.write_colormap(1, {7: (200, 20, 30, 255)})
    write(s3, tmp_path, s3.convert("palette/a.tif", 1, file=file))
    with rasterio.open(s3.path(KEY)) as mosaic:
        colours = [numpy.unique(band).tolist() for band in mosaic.read()]
        assert colours == [[200], [20], [30]]


def test_the_finest_resolution_is_that_of_the_mosaic(s3: Served, tmp_path: Path):
    fine = s3.convert("fine/a.tif")
    coarse = s3.convert(
        "fine/b.tif", transform=from_origin(310_000, 4_800_000, 20, 20), width=300
    )
    write(s3, tmp_path, fine, coarse)
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert mosaic.res == (10, 10)
        assert same_as_cog(s3, fine, mosaic)
        shown = mosaic.read(window=window_of(coarse, mosaic))
        assert (shown[:, ::2, ::2] == s3.pixels(coarse)).all()


def test_an_image_across_the_antimeridian(s3: Served, tmp_path: Path):
    across = from_origin(150_000, 8_200_000, 100, 100)
    record = s3.convert("fiji/a.tif", crs="EPSG:32701", transform=across)
    write(s3, tmp_path, record)
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert same_as_cog(s3, record, mosaic)


def test_a_small_picture_is_read_from_the_overviews(s3: Served, tmp_path: Path):
    size = {"width": 3000, "height": 3000}
    record = s3.convert("large/a.tif", 1, **size)
    with rasterio.open(s3.path(record.key)) as cog:
        assert len(cog.overviews(1)) > 1
        overview = cog.read(1, out_shape=(187, 187))
    write(s3, tmp_path, record)
    with rasterio.open(s3.path(KEY)) as mosaic:
        small = mosaic.read(1, out_shape=(187, 187))
    # Overviews are means, and decimated pixels would have the noise of the raster.
    assert (small == overview).all()
    debug = {"CPL_DEBUG": "ON", "CPL_CURL_VERBOSE": "NO"}
    log = s3.run(
        *("gdal_translate", "-q", "-outsize", "187", "187", "-of", "PNG"),
        *(s3.path(KEY), str(tmp_path / "small.png")),
        **debug,
    )
    read = sum(_bytes_of_ranges(log))
    assert 0 < read < record.result.cog.bytes / 4


def _bytes_of_ranges(log: str) -> Iterator[int]:
    for line in log.splitlines():
        if "Downloading" in line and ".tif" in line:
            first, last = line.split("Downloading ")[1].split(" ")[0].split("-")
            yield int(last) - int(first) + 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"crs": "EPSG:32617"}, "the CRS of 'b.tif' is not that of 'a.tif'"),
        ({"bands": 4}, "the number of bands of 'b.tif' is not that of 'a.tif'"),
        ({"data_type": "uint16"}, "the data type of 'b.tif' is not that of 'a.tif'"),
        (
            {"transform": (10.0, 1.0, 0.0, 1.0, -10.0, 0.0)},
            "north is not at the top of 'b.tif'",
        ),
        (
            {"transform": (10.0, 0.0, 1e200, 0.0, -10.0, 0.0)},
            "pixels large",
        ),
    ],
)
def test_images_that_do_not_fit_get_no_vrt(
    s3: Served,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict,
    reason: str,
):
    first = record_of("a.tif")
    write(s3, tmp_path, first)
    with caplog.at_level(logging.WARNING):
        # It sorts behind the other one.
        other = record_of("b.tif", bbox=None, footprint=None, **changes)
        write(s3, tmp_path, first, other)
    assert reason in caplog.text
    assert "the collection 1937 gets no VRT" in caplog.text
    with pytest.raises(ObjectMissing):
        s3.bucket.stat(KEY)


def test_images_that_have_no_place_are_left_out(s3: Served, tmp_path: Path):
    identity = tuple(map(float, Affine.identity()[:6]))
    write(
        s3,
        tmp_path,
        record_of("a.tif"),
        record_of("no-crs.tif", crs=None),
        record_of("no-transform.tif", transform=identity),
        record_of("not\x01in-xml.tif"),
    )
    text = s3.bucket.read(KEY, 10**6).decode()
    assert "/a.tif" in text
    assert "no-" not in text
    assert "not" not in text


def test_a_crs_that_names_a_file_is_not_read(
    s3: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    secret = tmp_path / "secret.prj"
    secret.write_text(CRS.from_epsg(32616).to_wkt())
    with caplog.at_level(logging.WARNING):
        write(s3, tmp_path, record_of("a.tif", crs=str(secret)))
    assert "GDAL does not know the CRS of its images" in caplog.text


def test_the_web_address_of_a_public_bucket_is_in_the_vrt(s3: Served, tmp_path: Path):
    target = s3.target(tmp_path / "scratch", "https://maps.example.org")
    vrt.write(records_of([record_of("1937/a b.tif")], tmp_path), target)
    text = s3.bucket.read(KEY, 10**6).decode()
    assert ">/vsicurl/https://maps.example.org/1937/a%20b.tif<" in text


def test_ten_thousand_images_are_the_most(
    s3: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    one = record_of("0.tif", bands=1, bands_info=())
    keys = (f"{number}.tif" for number in range(10_001))
    records = records_of((replace(one, key=key) for key in keys), tmp_path)
    target = s3.target(tmp_path / "scratch")
    vrt.write(replace(records, positions=records.positions[:10_000]), target)
    with rasterio.open(s3.path(KEY)) as mosaic:
        assert mosaic.count == 1
    with caplog.at_level(logging.WARNING):
        vrt.write(records, target)
    assert "it has more than 10,000 images" in caplog.text
