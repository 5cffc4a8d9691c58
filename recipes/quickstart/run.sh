#!/usr/bin/env bash
# The model, then recipes/quickstart.yaml with it: `make quickstart`, or this where the package is installed with its
# extra `quickstart`. MODEL=folder takes another model than the one that is fetched.
set -euo pipefail
cd "$(dirname "$0")/../.."
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore
cache="$HOME/.cache/hf_dataselect" # besides runs/quickstart, all that is written goes there
export HF_DATASETS_CACHE="${HF_DATASETS_CACHE:-$cache/datasets}" MPLCONFIGDIR="${MPLCONFIGDIR:-$cache/matplotlib}"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # threads that spin while they wait slow a busy machine down

started=$SECONDS
step() { printf '\n== %s [%d s]\n\n' "$1" $((SECONDS - started)); }

step "Model"
if [ -n "${MODEL:-}" ]; then
    model="$(cd "$MODEL" && pwd)"
else
    model="$(python recipes/quickstart/fetch_model.py)"
fi
echo "$model"
dtype="$(python -c 'import torch
from hf_dataselect.engines.runtime.model_state import has_fast_bfloat16
print("bfloat16" if has_fast_bfloat16(torch.device("cpu")) else "float32")')"
echo "This CPU computes fastest in $dtype."

step "Baseline (BM) on all 288 rows; a tenth of them at random, by rds and by bm25; then runs/quickstart/report"
hf-dataselect compare --config recipes/quickstart.yaml --model_name_or_path "$model" --dtype "$dtype"
