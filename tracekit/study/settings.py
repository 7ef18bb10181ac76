"""The settings of a study: one base recipe, the arms that start from it, seeds, and what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tracekit.config import Settings
from tracekit.world import World

BASE = "base"  # the untrained-further arm, and what every arm starts from unless it says otherwise
TEACHER = "teacher"  # who wrote the traces: a row of its own where an arm is compared with it
SPLITS = ("test", "length", "order", "surface")  # of evaluation; "test" is in distribution
IN_DISTRIBUTION = "test"


class ProblemCounts(Settings):
    """Problems of each split, and the teacher's traces of each training problem."""

    train: PositiveInt = 512
    test: PositiveInt = 128
    length: PositiveInt = 128
    order: PositiveInt = 128
    surface: PositiveInt = 128
    probe: PositiveInt = 160  # whose traces are read for hidden states
    traces: PositiveInt = 1


class Arm(Settings):
    """One way to train, as a recipe laid over `StudySettings.recipe`.

    start: the arm whose checkpoint it starts from. seeds: how many of the study's seeds it runs on; None: all.
    The tables that its method reads come from the study: curated traces, problems, text (pretrain, cpt), or pairs of
    a right trace and a wrong answer of the start's own (dpo).
    """

    recipe: dict[str, Any]
    start: str = BASE
    seeds: PositiveInt | None = None
    title: str = ""


class Evaluation(Settings):
    """What is sampled from each checkpoint on each split, besides one greedy completion a problem."""

    samples: int = Field(16, ge=3)  # a problem, at temperature 1; a vote of two is a draw
    max_tokens: PositiveInt = 80
    deep_samples: NonNegativeInt = 0  # a problem of the fixed deep set, in distribution; 0: no deep pass@k
    deep_problems: PositiveInt = 64
    deep_arms: tuple[str, ...] = (BASE, "grpo", "luffy")
    temperatures: tuple[float, ...] = ()  # of the sweep on the in-distribution split; (): none
    sweep_samples: PositiveInt = 16


class Gates(Settings):
    """What must hold before a conclusion is drawn."""

    skill: float = Field(0.95, description="least forced-step accuracy of the base, at every length")
    imitation: float = Field(0.80, description="least greedy accuracy of SFT in distribution")
    guess: float = Field(0.02, description="highest score of a guess")


class Probing(Settings):
    """Which hidden states are probed for what. `protocol` is laid over the probing protocol's own settings."""

    features: tuple[str, ...] = ("step_correct", "value_parity", "step_kind")  # (): nothing is probed
    arms: tuple[str, ...] | None = None  # beside the base; None: all
    position: Literal["prompt_end", "step_end", "before_answer", "step_mean"] = "step_end"
    traces_per_problem: PositiveInt = 1
    own_rollouts: tuple[str, ...] = ()  # arms whose rollouts (first seed) are read too, by every model: arm × source
    protocol: dict[str, Any] = {}


class StudySettings(Settings):
    """A whole study."""

    output: Path = Path("runs/study")
    title: str = "Does imitation or RL change what is linearly separable? And what does LUFFY buy?"
    seed: NonNegativeInt = 0  # of world, problems and teacher traces
    seeds: tuple[NonNegativeInt, ...] = (0,)  # of base and training runs: the replicates
    workers: PositiveInt = 2  # processes on this machine, one thread each
    world: World = World()
    problems: ProblemCounts = ProblemCounts()
    corpus: PositiveInt = 44_800  # documents that a base is pre-trained on
    base: dict[str, Any] = {}
    base_attempts: PositiveInt = 3  # trainings of a base, each twice as long, until it passes the gate of its skill
    recipe: dict[str, Any] = {}  # what all arms share
    arms: dict[str, Arm] = {}
    evaluation: Evaluation = Evaluation()
    gates: Gates = Gates()
    probing: Probing = Probing()
    grid: dict[str, list[Any]] = {}  # key.sub → values: a study at each point (see tracekit.study.grid)

    @model_validator(mode="after")
    def _consistent(self) -> StudySettings:
        if BASE in self.arms:
            raise ValueError(f"an arm may not be called {BASE}: that is what the arms start from.")
        if TEACHER in self.arms:
            raise ValueError(f"an arm may not be called {TEACHER}: the tables give that name to the teacher itself.")
        for name, arm in self.arms.items():
            if arm.start != BASE and arm.start not in self.arms:
                raise ValueError(f"arm {name} starts from {arm.start}; known: {BASE}, {', '.join(self.arms)}.")
            if "." in name or "/" in name:
                raise ValueError(f"arm {name}: a name holds no dot and no slash.")
        for key, named in (("own_rollouts", self.probing.own_rollouts), ("arms", self.probing.arms or ())):
            unknown = [name for name in named if name not in (BASE, *self.arms)]
            if unknown:
                raise ValueError(f"probing.{key} names {unknown[0]}; known: {BASE}, {', '.join(self.arms)}.")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be distinct, and at least one.")
        return self

    def grows(self, earlier: StudySettings) -> bool:
        """Whether this is `earlier` with more seeds at the end, more arms, or arms on more seeds.

        What was finished there then holds here, run by run.
        """
        if any(name not in self.arms for name in earlier.arms) or len(self.seeds) < len(earlier.seeds):
            return False
        kept = {name: self.arms[name].model_copy(update={"seeds": arm.seeds}) for name, arm in earlier.arms.items()}
        as_before = self.model_copy(update={"seeds": self.seeds[: len(earlier.seeds)], "arms": kept})
        return as_before == earlier and all(
            set(earlier.seeds_of(name)) <= set(self.seeds_of(name)) for name in earlier.arms
        )

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of every checkpoint, the base first; an arm comes after the one that it starts from."""
        ordered = [BASE]
        waiting = dict(self.arms)
        while waiting:
            ready = [name for name, arm in waiting.items() if arm.start in ordered]
            if not ready:
                raise ValueError(f"arms {', '.join(waiting)} start from one another in a circle.")
            ordered += ready
            for name in ready:
                del waiting[name]
        return [(name, seed) for name in ordered for seed in self.seeds_of(name)]

    def probed(self) -> tuple[str, ...]:
        """The arms whose hidden states are read, the base first; () where nothing is probed."""
        if not self.probing.features:
            return ()
        chosen = self.arms if self.probing.arms is None else self.probing.arms
        return (BASE, *(arm for arm in chosen if arm != BASE))

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The seeds that an arm runs on. An arm's start must have run on them too."""
        if name == BASE:
            return self.seeds
        arm = self.arms[name]
        own = self.seeds if arm.seeds is None else self.seeds[: arm.seeds]
        return tuple(seed for seed in own if seed in self.seeds_of(arm.start))
