#!/usr/bin/env bash
# LUFFY in verl on several nodes of 8 GPUs: a Ray cluster inside the job, the training command on its first node.
#   tracekit export RUN export.formats=["luffy"]      (on a machine with reasoning-tracekit)
#   sbatch --nodes=4 examples/slurm/verl.sh MODEL TRAIN.parquet VALIDATION.parquet
# Not run here: verl trains on GPUs. What of the adapter was tested: trainer/adapters/verl.py.
#SBATCH --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --exclusive --time=24:00:00
set -euo pipefail
model=$1; train=$2; validation=$3
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export VERL_USE_EXTERNAL_MODULES=trainer.adapters.verl_plugin

srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port=6379 --num-gpus=8 --block &
until srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray status --address="$head:6379" >/dev/null 2>&1; do
  sleep 5
done
if [ "$SLURM_NNODES" -gt 1 ]; then
  srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" \
    ray start --address="$head:6379" --num-gpus=8 --block &
fi

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" env RAY_ADDRESS="$head:6379" \
  python -m verl.trainer.main_ppo trainer.use_v1=False \
  +ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES=trainer.adapters.verl_plugin \
  data.train_files="$train" data.val_files="$validation" \
  data.custom_cls.path=pkg://trainer.adapters.verl_plugin data.custom_cls.name=LuffyDataset \
  data.train_batch_size=128 data.max_prompt_length=1024 data.max_response_length=8192 \
  actor_rollout_ref.model.path="$model" \
  actor_rollout_ref.actor.policy_loss.loss_mode=luffy \
  actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm actor_rollout_ref.actor.loss_scale_factor=8192 \
  actor_rollout_ref.actor.entropy_coeff=0.001 actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.agent.default_agent_loop=luffy_agent actor_rollout_ref.rollout.agent.num_workers=8 \
  algorithm.adv_estimator=grpo algorithm.norm_adv_by_std_in_grpo=False \
  reward.custom_reward_function.path=pkg://evaluators.rewards reward.custom_reward_function.name=compute_score \
  trainer.nnodes="$SLURM_NNODES" trainer.n_gpus_per_node=8 trainer.total_training_steps=1000
