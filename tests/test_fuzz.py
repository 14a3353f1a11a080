"""A damaged image gives a valid COG and JPEG or a reason, and never a crash."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from state.project import PROJECT

CASES = 100
CODES = {
    *("damaged-image", "not-a-raster", "no-crs", "wrong-bands", "check-failed"),
    *("unsupported-raster", "conversion-failed"),
}


@pytest.mark.parametrize("first", range(0, 1000, CASES))
def test_every_damaged_image_gives_outputs_or_a_reason(first: int, tmp_path: Path):
    fuzz = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.fuzz",
            str(first),
            str(CASES),
            str(tmp_path),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = fuzz.stdout.splitlines()
    # After a crash, the last line names the image that caused it.
    assert fuzz.returncode == 0, [*lines[-1:], fuzz.stderr[-2000:]]
    assert len(lines) == CASES
    for line in lines:
        case, end = json.JSONDecoder().raw_decode(line)
        outcome = json.loads(line[end:])
        result = outcome["result"]
        if outcome["status"] == 0:
            assert outcome["files"] == ["image.jpg", "image.tif", "result.json"], case
            assert outcome["valid"], case
        else:
            assert outcome["files"] == ["image.tif", "result.json"], case
            assert outcome["kept"], case
            assert result["code"] in CODES, (case, result)
            assert result["reason"] and "\n" not in result["reason"], case
