"""Every setting of a training run, its default and its meaning, once: a file for each theme."""

from __future__ import annotations

from trainer.settings.data import BatchSettings, DataSettings
from trainer.settings.model import LoraSettings, ModelChanges, NewModelSettings, ParallelSettings
from trainer.settings.objective import (
    AdvantageSettings,
    DistillSettings,
    DpoSettings,
    LossSettings,
    OnPolicySettings,
    PrefixSettings,
    ReplaySettings,
    ScheduleSettings,
    ShapeSettings,
    TeacherSettings,
)
from trainer.settings.rollout import (
    ENGINE_CONNECTION,
    CurriculumSettings,
    EngineSettings,
    RewardSettings,
    RolloutSettings,
)
from trainer.settings.run import CheckpointSettings, EvaluationSettings, LogSettings, OptimizerSettings
from trainer.settings.train import NEUTRAL, POLICY, SUPERVISED, TEACHER_ROLES, Method, TrainSettings

__all__ = [
    "ENGINE_CONNECTION",
    "NEUTRAL",
    "POLICY",
    "SUPERVISED",
    "TEACHER_ROLES",
    "AdvantageSettings",
    "BatchSettings",
    "CheckpointSettings",
    "CurriculumSettings",
    "DataSettings",
    "DistillSettings",
    "DpoSettings",
    "EngineSettings",
    "EvaluationSettings",
    "LogSettings",
    "LoraSettings",
    "LossSettings",
    "Method",
    "ModelChanges",
    "NewModelSettings",
    "OnPolicySettings",
    "OptimizerSettings",
    "ParallelSettings",
    "PrefixSettings",
    "ReplaySettings",
    "RewardSettings",
    "RolloutSettings",
    "ScheduleSettings",
    "ShapeSettings",
    "TeacherSettings",
    "TrainSettings",
]
