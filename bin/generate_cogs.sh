#!/bin/sh
# Make a COG and a JPEG of an image, in the directory that holds it.
#
#   generate_cogs.sh IMAGE BANDS
#
# HTCondor starts this on the execution point; it also runs by hand. It leaves
# IMAGE replaced by its COG, the JPEG beside it and result.json; when it fails,
# result.json alone, with the reason, and IMAGE as it was.
#
# It wants a python3 on the PATH (or named by PYTHON) that has rasterio and
# Pillow, as the project's conda environment does.
set -u

fail() { # EXIT CODE REASON
    printf '{"ok": false, "code": "%s", "reason": "%s"}\n' "$2" "$3" >result.json
    printf '%s\n' "$3" >&2
    exit "$1"
}

if [ $# -ne 2 ] || [ "$1" = --help ]; then
    echo "usage: generate_cogs.sh IMAGE BANDS     e.g. generate_cogs.sh scene.tif 4" >&2
    exit 64
fi
case $2 in
'' | *[!0-9]*)
    echo "generate_cogs.sh: BANDS must be a number, e.g. generate_cogs.sh scene.tif 4" >&2
    exit 64
    ;;
esac

# The node's code lies beside this script in a sandbox, one level up in a clone.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -f "$here/node/__main__.py" ]; then
    code=$here
else
    code=$(dirname -- "$here")
fi

# The image's directory must not be searched for modules: it may hold anything.
export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$code"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(3 if sys.version_info < (3, 11) else 0)'
case $? in
0) exec "$python" -m node "$1" "$2" ;;
3) fail 69 old-python "this machine's $python is older than 3.11: use --container-image, or machines that have it" ;;
*) fail 69 no-python "this machine has no $python: nodes want Python 3.11 with rasterio, or --container-image" ;;
esac
