#!/bin/sh
# Make a COG and a JPEG of an image, in the directory that holds it.
#
#   generate_cogs.sh IMAGE BANDS [OPTION…]     --help lists the options
#
# For several images, repeat this with --next between them, and name each one's
# result with --result FILE.
#
# HTCondor starts this script on the execution point; it also runs by hand. It
# replaces IMAGE by its COG and writes the JPEG beside it and result.json. If it
# fails, it writes only result.json, with the reason, and leaves IMAGE as it was.
# docs/conversion.md lists the exit statuses.
#
# It needs a python3 on the PATH (or named by PYTHON) that has rasterio, Pillow,
# zstandard and isal, as the project's conda environment does; or beside itself the
# packed node, which needs nothing but a kernel (docs/execution-points.md).
set -u

results=
previous=
for word in "$@"; do
    case $previous,$word in
    *[!A-Za-z0-9._,-]*) ;;
    --result,*) results="$results $word" ;;
    esac
    previous=$word
done
results=${results:-result.json}

# Write a reason for each image that has no result, and exit.
fail() { # EXIT CODE REASON
    for result in $results; do
        [ -s "$result" ] ||
            printf '{"ok": false, "code": "%s", "reason": "%s"}\n' "$2" "$3" >"$result"
    done
    printf '%s\n' "$3" >&2
    exit "$1"
}

# A result of an earlier run must not be taken for one of this run.
# shellcheck disable=SC2086 # one word for each result
rm -f $results
# HTCondor leaves the presigned URLs of its transfers in the sandbox.
rm -f .curl_plugin.in .curl_plugin.out

# The node's code is in an archive beside this script in a sandbox, and one level up in
# a clone.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for packed in "$here"/node-packed.*; do :; done
if [ -f "$here/node.zip" ]; then
    code=$here/node.zip
else
    code=$(dirname -- "$here")
fi

# Python must not search the image's directory for modules: it may hold anything.
export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$code"

# Nothing here multiplies matrices, and OpenBLAS takes as long to start its threads
# as Python does to start.
export OPENBLAS_NUM_THREADS=1

# Use pages of 2 MiB, and keep memory for the next tile instead of returning it:
# otherwise the kernel takes a tenth of the time to hand out memory.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=134217728

# The names of temporary files begin with this, so that they can be removed if the node
# is killed.
export COG_PIPELINE_SCRATCH=".cog-$$-"

if [ -f "$packed" ]; then
    machine=$(uname -m)
    [ "$machine" = "${packed##*.}" ] || fail 69 wrong-machine "this machine has the processor type $machine, but the packed node is for ${packed##*.}: use machines like the access point, or --node-environment container:IMAGE"
    # It unpacks itself here: programs may be forbidden to run in /tmp.
    export TMPDIR="$here/$COG_PIPELINE_SCRATCH"packed
    mkdir -p "$TMPDIR"
    if [ ! -x "$packed" ]; then
        # HTCondor may share the file with other jobs: leave it unchanged.
        cp "$packed" "$TMPDIR" && packed=$TMPDIR/${packed##*/} && chmod +x "$packed"
    fi
    "$packed" "$@"
    status=$?
    rm -rf "$TMPDIR"
    case $status in
    126 | 127) fail 69 wrong-machine "this machine ($(uname -srm)) cannot run the packed node, most likely because its kernel is too old or its sandbox does not allow programs to run: see its log" ;;
    esac
else
    python=${PYTHON:-python3}
    "$python" -c 'import sys
if sys.version_info < (3, 11): sys.exit(3)
from node.__main__ import run
run()' "$@"
    status=$?
    case $status in
    3) fail 69 old-python "this machine's $python is older than 3.11: use --node-environment packed, or machines that have it" ;;
    126 | 127) fail 69 no-python "this machine has no $python: nodes need Python 3.11 with rasterio, or --node-environment packed" ;;
    esac
fi

case $status in
0 | 64) exit $status ;;
# Python exits with 120 if its log has no room for its last output.
120) status=74 ;;
esac
# node/batch.py reports how each conversion ended. What follows is for the case that it
# could not: it was killed, or never started, or the disk is full.
folder=$(dirname -- "$1")
rm -rf "${folder:?}/$COG_PIPELINE_SCRATCH"*
unexplained=
for result in $results; do
    [ -s "$result" ] || unexplained=yes
done
[ "$unexplained" ] || exit $status
[ $status -ne 137 ] || fail 137 killed "it was killed (signal 9), most often because its machine had too little memory for it: see its log"
[ $status -ne 142 ] || fail 75 time-limit "it was not done within its time limit: --time-limit sets another"
[ $status -le 128 ] || fail $status killed "it was killed by signal $((status - 128)): see its log"
case $status in
69) fail 69 not-unpacked "the packed node could not be unpacked on this machine: see its log" ;;
74) fail 74 out-of-disk "the disk of its machine is full, without room even for a longer reason" ;;
*) fail $status internal-error "it ended with status $status and no reason: see its log" ;;
esac
