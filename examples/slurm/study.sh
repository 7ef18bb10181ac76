#!/usr/bin/env bash
# Workers of a study on a shared disk: every task takes jobs from the study's folder until none is left.
#   tracekit study RECIPE output=FOLDER --dry-run && sbatch --array=0-7 examples/slurm/study.sh FOLDER
#SBATCH --gpus=1 --time=24:00:00 --requeue
set -euo pipefail
srun python -m tracekit.study.worker "$1"
