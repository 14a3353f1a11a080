"""Tags keep their line ends and their blanks."""

from pathlib import Path

import pytest
import rasterio

from tests.support import rasters
from tests.support.kinds import convert

TEXTS = {
    "lines of Windows": "Flight 7\r\nCamera: UltraCam\r\n\r\nfocal length\t100.5",
    "lines of old Macs": "Flight 7\rCamera: UltraCam\r",
    "lines of Unix": "Flight 7\nCamera: UltraCam\n",
    "all of them": "a\r\nb\rc\n\rd",
    "blanks and line ends around": " \r\n a < b & c > d \"e\" 'f' \r\n ",
    "what looks like a reference": "&#13; &amp;#13; &lt;",
    "only line ends": "\r\n\r\n",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_is_kept_as_it_is(kind: str, tmp_path: Path):
    text = TEXTS[kind]

    def make(path: Path) -> None:
        rasters.write(path, 2)
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(TIFFTAG_IMAGEDESCRIPTION=text, NOTE=text)
            raster.update_tags(1, NOTE=text)
            raster.update_tags(ns="ARCHIVE", NOTE=text)
            raster.set_band_description(1, text)

    status, result, image = convert(tmp_path, make, 2)

    assert status == 0, result["reason"]
    assert result["warnings"] == []
    with rasterio.open(image) as source, rasterio.open(tmp_path / "image.tif") as cog:
        for band, namespace in ((0, None), (1, None), (0, "ARCHIVE")):
            expected = source.tags(band, namespace)
            assert expected.items() <= cog.tags(band, namespace).items()
        kept = cog.tags()["TIFFTAG_IMAGEDESCRIPTION"]
        # GDAL itself drops blanks at the ends of some texts.
        assert kept.strip() == text.strip()
        assert cog.descriptions == source.descriptions
