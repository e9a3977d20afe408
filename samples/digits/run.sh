#!/bin/sh
# A Caffe network to INT8 ncnn: convert, verify, and count right answers before and after.
set -e
here=$(dirname "$0")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

say() { printf '\n$ %s\n' "$*"; "$@"; }

say qconvert convert "$here/digits.prototxt" "$here/digits.caffemodel" --to ncnn -o "$out/int8" \
    --calib "$here/calibration" --preprocess "$here/preprocessing.json"
say qconvert verify "$out/int8" --data "$here/test"
echo; echo "Float, in onnxruntime:"
say qconvert evaluate "$here/digits.prototxt" "$here/digits.caffemodel" \
    --data "$here/test" --labels "$here/test_labels.txt" --preprocess "$here/preprocessing.json"
echo; echo "INT8, in ncnn:"
say qconvert evaluate "$out/int8" --data "$here/test" --labels "$here/test_labels.txt"
