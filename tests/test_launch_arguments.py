"""Patterns and prefixes with which a launch could never work."""

import pytest

from tests.support.archive import Archive


def refusal(archive: Archive, option: str, value: str) -> str:
    done = archive.run(option, value.format(bucket=archive.maps.name))
    assert done.returncode == 1, done.stdout
    assert not list(archive.directory.glob("launch-*"))
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("s3://{bucket}/*raw.csv", "use '*raw.csv'"),
        ("S3://{bucket}/north/*raw.csv", "no bucket"),
        ("https://s3.example.org/{bucket}/*raw.csv", "leave both out"),
        ("/north/*raw.csv", "use 'north/*raw.csv'"),
        ("./*raw.csv", "leave it out"),
        ("../maps/*raw.csv", "leave it out"),
        ("north//*raw.csv", "leave it out"),
        (" *raw.csv", "spaces around it"),
        ("n" * 1100 + "*raw.csv", "shorten it"),
        ("{bucket}/*raw.csv", "use '*raw.csv'"),
    ],
)
def test_a_pattern_that_no_key_matches_is_refused(
    archive: Archive, pattern: str, remedy: str
):
    archive.upload_manifest("x-raw.csv", [("image.tif", 1)])
    assert remedy in refusal(archive, "-p", pattern)
    assert archive.maps.exists("x-raw.csv")


@pytest.mark.parametrize(
    ("prefix", "remedy"),
    [
        ("/cogs/", "use 'cogs/'"),
        ("/", "begins with '/'"),
        ("../x/", "leave it out"),
        ("x/../y/", "leave it out"),
        ("./cogs/", "leave it out"),
        ("cogs//", "leave it out"),
        ("s3://cogs/new/", "use 'new/'"),
        ("https://s3.example.org/cogs/", "leave both out"),
        ("cogs/\n", "not printable"),
        ("x" * 1100, "shorten it"),
    ],
)
def test_a_prefix_that_no_output_can_have_is_refused(
    archive: Archive, prefix: str, remedy: str
):
    assert remedy in refusal(archive, "--output-prefix", prefix)


def test_a_folder_may_have_the_name_of_its_bucket(archive: Archive):
    folder = archive.maps.name
    archive.upload_raster(f"{folder}/image.tif", 1)
    archive.upload_manifest(f"{folder}/x-raw.csv", [(f"{folder}/image.tif", 1)])
    archive.launch("-p", f"{folder}/*raw.csv", "--output-prefix", "a.b/..c/x-")

    assert archive.outcome(f"{folder}/x-")[1] == []
    assert archive.cogs.exists(f"a.b/..c/x-{folder}/image.tif")
