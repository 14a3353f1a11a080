#!/bin/sh
# Convert the images of a bucket as a user would without this project:
#
#   peer.sh MAPS COGS <KEYS
#
# MAPS and COGS are buckets as rclone names them, KEYS has a key a line. Two images are
# converted at a time.
set -eu

maps=$1 cogs=$2
export maps cogs
# shellcheck disable=SC2016 # the inner shell expands the variables
exec xargs -P 2 -I '{}' sh -euc '
    folder=$(mktemp -d)
    trap "rm -r \"\$folder\"" EXIT
    cd "$folder"
    rclone copyto "$maps/{}" image.tif
    gdal_translate -q -of COG -co COMPRESS=LZW image.tif cog.tif
    gdal_translate -q -of JPEG -co QUALITY=80 cog.tif image.jpg
    name="{}"
    rclone copyto cog.tif "$cogs/{}"
    rclone copyto image.jpg "$cogs/${name%.tif}.jpg"
'
