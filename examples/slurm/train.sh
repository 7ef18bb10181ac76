#!/usr/bin/env bash
# One training run on one node; killed at the time limit, the same job goes on where it stood.
#   sbatch examples/slurm/train.sh luffy model=MODEL data.problems=… data.curated=… output=…
#SBATCH --nodes=1 --gpus-per-node=8 --time=24:00:00 --requeue
set -euo pipefail
srun torchrun --nproc-per-node 8 --no-python tracekit train "$@"
