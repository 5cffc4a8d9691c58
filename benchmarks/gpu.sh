#!/usr/bin/env bash
# One command on a bare machine with one GPU, below 9 minutes: installs, runs the tests that need a GPU, measures.
#
#   bash benchmarks/gpu.sh              # writes runs/gpu/: tests.txt, gpu.json, gpu.md
#   bash benchmarks/gpu.sh --dry_run    # tiny sizes on any machine, to try the script itself; TEST_DEVICE=cpu is set
#
# OUT=folder       where results go
# PYTHON=python    an interpreter; one that has all packages already is used as it is
# WHEELS=folder    wheels to install from where there is no network
# SECONDS_IN_ALL   530 by default, of which the tests get 170 at most; what did not fit is named in gpu.md

set -u
cd "$(dirname "$0")/.."
out=${OUT:-runs/gpu} python=${PYTHON:-python3} all=${SECONDS_IN_ALL:-530} dry=()
if [ "${1:-}" = --dry_run ]; then
    dry=(--dry_run)
    export TEST_DEVICE=cpu
fi
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false

left() { echo $((all > SECONDS + 20 ? all - SECONDS : 20)); }

if ! "$python" -c 'import bitsandbytes, evaluate, peft, psutil, pytest, regex, sklearn, trl' 2>/dev/null; then
    echo "Installing ..."
    if [ -n "${WHEELS:-}" ]; then
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$out/site" "$WHEELS"/*.whl || exit 1
        export PYTHONPATH="$PYTHONPATH:$out/site"
    else # with the torch that is there, if there is one
        "$python" -m venv --system-site-packages "$out/venv" && python="$out/venv/bin/python" || exit 1
        "$python" -m pip install --quiet --no-compile -e . 'pytest>=8.0' pillow 'openai>=1.50' || exit 1
    fi
fi
"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
echo "$SECONDS s: tests"
timeout --signal=INT 170 "$python" -m pytest -q -p no:cacheprovider --tb=short tests/test_gpu.py 2>&1 | tee "$out/tests.txt" | tail -40
tests=${PIPESTATUS[0]}
echo "$SECONDS s: measurements"
timeout "$(left)" "$python" -m benchmarks.gpu "$out" --seconds $(($(left) - 15)) ${dry[@]+"${dry[@]}"}
measured=$?
echo "$SECONDS s: done; tests ended with $tests, measurements with $measured"
cat "$out/gpu.md"
exit $((tests || measured))
