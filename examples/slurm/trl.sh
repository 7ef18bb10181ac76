#!/usr/bin/env bash
# LUFFY in TRL on several nodes of 8 GPUs, by accelerate; the training script is the user's copy of examples/trl_luffy.py.
#   accelerate config --config_file fsdp.yaml       (once: FSDP version 2, or DeepSpeed)
#   sbatch --nodes=4 examples/slurm/trl.sh fsdp.yaml train_luffy.py
#SBATCH --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --time=24:00:00 --requeue
set -euo pipefail
config=$1; script=$2
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# $SLURM_NODEID differs from node to node: the inner shell reads it
srun bash -c "accelerate launch --config_file '$config' --num_machines $SLURM_NNODES \
  --num_processes $((SLURM_NNODES * 8)) --machine_rank \$SLURM_NODEID \
  --main_process_ip $head --main_process_port 29500 '$script'"
