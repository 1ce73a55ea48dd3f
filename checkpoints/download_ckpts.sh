#!/bin/sh
# Fetch published checkpoints into this folder: all of them, or those named as arguments.
# Interrupted and started again, it goes on where it stopped.
set -eu
cd "$(dirname "$0")"

if [ "$#" -eq 0 ]; then
    set -- sam2_hiera_tiny sam2_hiera_small sam2_hiera_base_plus sam2_hiera_large \
        sam2.1_hiera_tiny sam2.1_hiera_small sam2.1_hiera_base_plus sam2.1_hiera_large \
        sam2.1_hq_hiera_large
fi
for name in "$@"; do
    sam2-hq download "$name" --out .
done
