"""Convert damaged images: ``python -m tests.support.fuzz SEED COUNT DIRECTORY``.

For each image, it prints one line of JSON with the damage and the outcome. It creates
the images itself and derives the damage from the seed.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rio_cogeo.cogeo import cog_validate

from node.__main__ import main
from node.options import parse
from tests.support import rasters

KINDS = {
    "strips": {"bands": 3},
    "lzw": {"bands": 1, "compress": "LZW", "predictor": 2},
    "deflate": {"bands": 2, "dtype": "int16", "compress": "DEFLATE", "tiled": True},
    "zstd": {"bands": 1, "dtype": "float32", "compress": "ZSTD", "interleave": "band"},
    "jpeg": {"bands": 3, "compress": "JPEG", "photometric": "YCBCR"},
    "big": {"bands": 4, "BIGTIFF": "YES", "compress": "PACKBITS"},
    "webp": {"bands": 3, "compress": "WEBP", "tiled": True},
    "lerc": {"bands": 1, "dtype": "float64", "compress": "LERC_ZSTD"},
    "fax": {"bands": 1, "dtype": "uint8", "nbits": 1, "compress": "CCITTFAX4"},
}
# A directory, the keys and the metadata, where one bit changes most.
_HEAD = 1200  # bytes


def damaged(seed: int, image: bytes) -> tuple[str, bytes]:
    chance = random.Random(f"{seed} damage")
    how = chance.choice(("cut", "head", "anywhere", "zeros"))
    content = bytearray(image)
    if how == "cut":
        del content[chance.randrange(len(content)) :]
    elif how == "zeros":
        start = chance.randrange(len(content))
        end = min(len(content), start + chance.randrange(1, 4096))
        content[start:end] = bytes(end - start)
    else:
        end = min(_HEAD, len(content)) if how == "head" else len(content)
        for _ in range(chance.randrange(1, 9)):
            content[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return how, bytes(content)


def run(first_seed: int, count: int, directory: Path) -> Iterator[dict]:
    images = {}
    for name, options in KINDS.items():
        path = directory / f"{name}.tif"
        rasters.write(path, **options)
        images[name] = path.read_bytes()
        path.unlink()
    os.chdir(directory)
    for seed in range(first_seed, first_seed + count):
        name = random.Random(seed).choice(sorted(images))
        how, content = damaged(seed, images[name])
        Path("image.tif").write_bytes(content)
        bands = str(KINDS[name]["bands"])
        print(json.dumps({"seed": seed, "kind": name, "how": how}), end=" ", flush=True)
        status = main(Path("image.tif"), int(bands), parse(["image.tif", bands])[0][2])
        result = json.loads(Path("result.json").read_text())
        untouched = Path("image.tif").read_bytes() == content
        valid = status == 0 and _is_valid_pair(Path("image.tif"), Path("image.jpg"))
        found = sorted(each.name for each in Path().iterdir())
        yield {
            "status": status,
            "result": result,
            "files": found,
            "kept": untouched,
            "valid": valid,
        }
        for each in found:
            Path(each).unlink()


def _is_valid_pair(cog: Path, jpeg: Path) -> bool:
    with Image.open(jpeg) as picture:
        picture.load()
    return cog_validate(cog, strict=True, quiet=True)[0]


if __name__ == "__main__":
    for outcome in run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])):
        print(json.dumps(outcome), flush=True)
