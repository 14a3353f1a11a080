#!/bin/sh
# Make a COG and a JPEG of an image, in the directory that holds it.
#
#   generate_cogs.sh IMAGE BANDS [OPTION…]     --help tells which
#
# HTCondor starts this on the execution point; it also runs by hand. It leaves
# IMAGE replaced by its COG, the JPEG beside it and result.json; when it fails,
# result.json alone, with the reason, and IMAGE as it was. docs/conversion.md
# tells what each exit status means.
#
# It wants a python3 on the PATH (or named by PYTHON) that has rasterio, Pillow,
# zstandard and isal, as the project's conda environment does.
set -u

fail() { # EXIT CODE REASON
    printf '{"ok": false, "code": "%s", "reason": "%s"}\n' "$2" "$3" >result.json
    printf '%s\n' "$3" >&2
    exit "$1"
}

# The node's code lies beside this script in a sandbox, one level up in a clone.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -f "$here/node/__main__.py" ]; then
    code=$here
else
    code=$(dirname -- "$here")
fi

# The image's directory must not be searched for modules: it may hold anything.
export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$code"

# Nothing here multiplies matrices, and OpenBLAS takes as long to start its threads
# as Python does to start.
export OPENBLAS_NUM_THREADS=1

# Pages of 2 MiB, and memory that is kept for the next tile rather than given back:
# a tenth of the time is else the kernel's, for handing out memory.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=134217728

# What an earlier one told is not to be taken for what this one tells.
rm -f result.json
began=$(date +%s)
# HTCondor leaves the signed URLs of its transfers in the sandbox.
rm -f .curl_plugin.in .curl_plugin.out

python=${PYTHON:-python3}
"$python" -c 'import sys
if sys.version_info < (3, 11): sys.exit(3)
from node.__main__ import run
run()' "$@"
status=$?
case $status in
0 | 64) exit $status ;;
3) fail 69 old-python "this machine's $python is older than 3.11: use --container-image, or machines that have it" ;;
126 | 127) fail 69 no-python "this machine has no $python: nodes want Python 3.11 with rasterio, or --container-image" ;;
esac
if [ $status -gt 128 ]; then
    rm -rf "$(dirname -- "$1")/.cog-$$-"*
    seconds=$(($(date +%s) - began))
    case $((status - 128)) in
    9) fail $status killed "it was killed after $seconds s (signal 9), most often because its machine had too little memory for it: ask for more, as in --submit-option 'request_memory = 4096'" ;;
    14) fail 75 time-limit "it was not done after $seconds s, its time limit: --time-limit sets another" ;;
    *) fail $status killed "it was killed after $seconds s by signal $((status - 128))" ;;
    esac
fi
[ -s result.json ] && exit $status
# Python's own status, of a disk on which its log had no room either, says nothing.
{ echo >.probe; } 2>/dev/null || status=74
rm -f .probe
case $status in
74) fail 74 out-of-disk "the disk of its machine is full, without room even for a longer reason" ;;
*) fail $status unforeseen "it ended with status $status and no reason: its log may have one" ;;
esac
