#!/bin/sh
# Make a COG and a JPEG of an image, in the directory that holds it.
#
#   generate_cogs.sh IMAGE BANDS [OPTION…]     --help tells which
#
# or of several, with --next between them and --result FILE among each one's options.
#
# HTCondor starts this on the execution point; it also runs by hand. It leaves
# IMAGE replaced by its COG, the JPEG beside it and result.json; when it fails,
# result.json alone, with the reason, and IMAGE as it was. docs/conversion.md
# tells what each exit status means.
#
# It wants a python3 on the PATH (or named by PYTHON) that has rasterio, Pillow,
# zstandard and isal, as the project's conda environment does; or beside itself the
# packed node, which wants nothing but a kernel (docs/execution-points.md).
set -u

# Of several images, each has its result under another name.
results=
word_before=
for word in "$@"; do
    case $word_before,$word in
    *[!A-Za-z0-9._,-]*) ;;
    --result,*) results="$results $word" ;;
    esac
    word_before=$word
done
several=$results
results=${results:-result.json}

fail() { # EXIT CODE REASON
    for result in $results; do
        # Of several, some may have been done.
        if [ -n "$several" ] && [ -s "$result" ]; then continue; fi
        printf '{"ok": false, "code": "%s", "reason": "%s"}\n' "$2" "$3" >"$result"
    done
    printf '%s\n' "$3" >&2
    exit "$1"
}

# The node's code lies in an archive beside this script in a sandbox, one level up in a
# clone.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for packed in "$here"/node-packed.*; do :; done
if [ -f "$here/node.zip" ]; then
    code=$here/node.zip
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
# shellcheck disable=SC2086 # a word for each of them
rm -f $results
began=$(date +%s)
# HTCondor leaves the signed URLs of its transfers in the sandbox.
rm -f .curl_plugin.in .curl_plugin.out

# What temporary files begin with, so that they are found when the node was killed.
export COG_PIPELINE_SCRATCH=".cog-$$-"

if [ -f "$packed" ]; then
    machine=$(uname -m)
    [ "$machine" = "${packed##*.}" ] || fail 69 wrong-machine "this machine is of the kind $machine, the packed node of ${packed##*.}: it needs machines like the access point, or --node-environment container:IMAGE"
    # It unpacks itself there: not in /tmp, where programs may be forbidden to run.
    export TMPDIR="$here/$COG_PIPELINE_SCRATCH"packed
    mkdir -p "$TMPDIR"
    if [ ! -x "$packed" ]; then
        # A file that HTCondor shares with other jobs is not to be changed.
        cp "$packed" "$TMPDIR" && packed=$TMPDIR/${packed##*/} && chmod +x "$packed"
    fi
    "$packed" "$@"
    status=$?
    rm -rf "$TMPDIR"
    case $status in
    126 | 127) fail 69 wrong-machine "this machine ($(uname -srm)) cannot run the packed node, most likely since its kernel is too old or programs may not be run in its sandbox: its log says more" ;;
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
    126 | 127) fail 69 no-python "this machine has no $python: nodes want Python 3.11 with rasterio, or --node-environment packed" ;;
    esac
fi
case $status in
0 | 64) exit $status ;;
# Python's own, when its log has no room for the last of what it printed.
120) status=74 ;;
esac
if [ $status -gt 128 ]; then
    rm -rf "$(dirname -- "$1")/$COG_PIPELINE_SCRATCH"*
    seconds=$(($(date +%s) - began))
    case $((status - 128)) in
    9) fail $status killed "it was killed after $seconds s (signal 9), most often because its machine had too little memory for it: ask for more, as in --submit-option 'request_memory = 4096'" ;;
    14) fail 75 time-limit "it was not done after $seconds s, its time limit: --time-limit sets another" ;;
    *) fail $status killed "it was killed after $seconds s by signal $((status - 128))" ;;
    esac
fi
told=yes
for result in $results; do
    [ -s "$result" ] || told=
done
[ "$told" ] && exit $status
# Python's own status, of a disk on which its log had no room either, says nothing.
{ echo >.probe; } 2>/dev/null || status=74
rm -f .probe
case $status in
69) fail 69 not-unpacked "the packed node could not be unpacked on this machine: its log says why" ;;
74) fail 74 out-of-disk "the disk of its machine is full, without room even for a longer reason" ;;
*) fail $status unforeseen "it ended with status $status and no reason: its log may have one" ;;
esac
