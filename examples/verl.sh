#!/usr/bin/env bash
# GRPO in verl with our reward, on one node of 8 GPUs; verl's own environment, with reasoning-tracekit installed in it:
#   pip install --no-deps reasoning-tracekit && pip install pydantic polars
#   examples/verl.sh MODEL TRAIN.parquet VALIDATION.parquet     (written by: tracekit export RUN verl)
# Not run here: verl trains on GPUs. The key names are those of verl's configuration of 2026 (0.7 and later; before that
# custom_reward_function.path and .name have no `reward.` in front). LUFFY in verl: docs/scaling.md.
set -euo pipefail
reward=$(python -c 'import evaluators.rewards as r; print(r.__file__)')
# verl asks for micro-batch sizes or dynamic ones; a mini-batch is at most the train batch
python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  data.train_files="$2" data.val_files="$3" \
  data.train_batch_size=128 data.max_prompt_length=1024 data.max_response_length=4096 \
  actor_rollout_ref.model.path="$1" \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  reward.custom_reward_function.path="$reward" \
  reward.custom_reward_function.name=compute_score \
  trainer.n_gpus_per_node=8 trainer.nnodes=1 trainer.total_training_steps=500
