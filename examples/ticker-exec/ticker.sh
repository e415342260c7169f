#!/bin/sh
# Works in its data directory every second until it is stopped.
#
# Its whole state is one number in the file `count`, replaced by rename so that a stop at any
# moment leaves the old number or the new one. A later version that finds the file goes on counting.
set -eu
trap 'exit 0' TERM INT
cd "${MUSTER_DATA_DIR:-.}"

count=0
if [ -e count ]; then
    read -r count <count
fi
case $count in
'' | *[!0-9]*)
    echo "the file count holds no number" >&2
    exit 1
    ;;
esac

while :; do
    count=$((count + 1))
    echo "$count" >count.new
    mv count.new count
    echo "partition ${MUSTER_PARTITION:-?} of ${MUSTER_NUM_PARTITIONS:-?} of ${MUSTER_DEPLOYMENT:-?}/${MUSTER_APP:-?}: count=$count"
    sleep 1
done
