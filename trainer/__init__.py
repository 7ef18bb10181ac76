"""LUFFY and all that it is compared with: pre-training, SFT, DPO, GRPO and mixed-policy RL."""
