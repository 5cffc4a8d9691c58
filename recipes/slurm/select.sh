#!/bin/bash
# A selection in parts, as an array of jobs, and the selection that reads them, as one more job, with a GPU as the parts:
# it looks for scores in the dtype that it would compute them in.
#
#   parts=$(sbatch --parsable --array=1-8 --gres=gpu:1 select.sh --config ifd --selection_cache_dir /shared/cache)
#   sbatch --dependency=afterok:$parts --gres=gpu:1 select.sh --config ifd --selection_cache_dir /shared/cache
#
# A part that failed or was killed is submitted again with its number (--array=3 --export=ALL,PARTS=8): it goes on.
#SBATCH --job-name=select
#SBATCH --output=select-%A-%a.log
set -eu
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    set -- "$@" --part "$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_MAX}"
fi
exec hf-dataselect select "$@"
