#!/usr/bin/env bash
# Not run here: verl trains on GPUs. Its key names are those of 2026; compare them with your version.
# GRPO in verl with our reward; verl's own environment, with reasoning-tracekit installed in it.
#   examples/verl.sh MODEL TRAIN.parquet VALIDATION.parquet     (written by: tracekit export RUN verl)
set -euo pipefail
reward=$(python -c 'import evaluators.rewards as r; print(r.__file__)')
python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  actor_rollout_ref.model.path="$1" \
  data.train_files="$2" data.val_files="$3" \
  data.max_prompt_length=1024 data.max_response_length=4096 \
  actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \
  reward.custom_reward_function.path="$reward" \
  reward.custom_reward_function.name=compute_score \
  trainer.n_gpus_per_node=8 trainer.nnodes=1
