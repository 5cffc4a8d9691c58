#!/usr/bin/env bash
# Three runs that differ in the rows they train on, and the report: `make quickstart`, or this where the package is
# installed with its extra `quickstart`. MODEL=folder takes another model than the one that is fetched.
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
from hf_dataselect.engines.state import has_fast_bfloat16
print("bfloat16" if has_fast_bfloat16(torch.device("cpu")) else "float32")')"
echo "This CPU computes fastest in $dtype."

run() { # method, and options besides those of the recipe
    hf-dataselect train --config recipes/quickstart.yaml --model_name_or_path "$model" --dtype "$dtype" \
        --selection_method "$1" --output_dir "runs/quickstart/$1" "${@:2}"
}

step "1/3 Baseline (BM): all rows"
run full --eval_on_start true
step "2/3 Control: a quarter of the rows, drawn at random"
run random --selection_budget 0.25 --baseline_dir runs/quickstart/full
step "3/3 IFD: a quarter of the rows, chosen"
run ifd --selection_budget 0.25 --baseline_dir runs/quickstart/full \
    --selection_kwargs '{"warmup_clusters": 10, "warmup_rows_per_cluster": 5, "warmup_gradient_accumulation": 1}'

step "Report"
hf-dataselect report runs/quickstart/{full,random,ifd} --dataset_name recipes/quickstart/candidates.jsonl \
    --count_by fault --output_dir runs/quickstart/report
step "Done"
