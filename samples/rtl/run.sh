#!/bin/sh
# Run layers of a raw bundle through the engine in Icarus Verilog.
#
#     sh run.sh BUNDLE [LAYER...]      no LAYER: every layer with weights of up to a million MACs
set -e
here=$(dirname "$0")
bundle=${1:?give the folder that "qconvert convert --to raw --emit mem --layout pe:8" wrote}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- $(python3 "$here/layer.py" "$bundle")
[ $# -gt 0 ] || { echo "no layer of this bundle is small enough to simulate" >&2; exit 1; }

failed=0
for layer in "$@"; do
    python3 "$here/layer.py" "$bundle" "$layer" > "$work/layer.sv"
    iverilog -g2012 -o "$work/bench" -s bench \
        "$work/layer.sv" "$here/requantize.sv" "$here/engine.sv" "$here/bench.sv"
    vvp -n "$work/bench" | tee "$work/log"
    grep -q '^PASS' "$work/log" || failed=1
done
exit $failed
