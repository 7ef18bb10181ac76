"""The settings of a study: one base recipe, the arms that start from it, seeds, and what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from probes.protocol.features import FEATURES
from probes.protocol.settings import ProtocolSettings
from probes.states.places import parse_position
from tracekit.core.recipes import find_recipe
from tracekit.core.settings import Settings, SettingsError, build_settings, read_toml
from tracekit.study.problem_sets import ProblemSet
from tracekit.study.tasks.chains import Teacher, World
from trainer.settings import ModelChanges

BASE = "base"  # the untrained-further arm, and what every arm starts from unless it says otherwise
TEACHER = "teacher"  # who wrote the traces: a row of its own where an arm is compared with it
SPLITS = ("test", "length", "order", "surface")  # of the embedded world
IN_DISTRIBUTION = "test"  # of these
RESERVED = ("train", "probe", "deep", "sweep")  # folders beside those of a data study's sets
VOTERS = 3  # fewest samples of which a vote is taken: one of two is a draw


class ProblemCounts(Settings):
    """Problems of each split, and the teacher's traces of each training problem."""

    train: PositiveInt = Field(512, description="problems of training")
    test: PositiveInt = Field(128, description="problems in distribution")
    length: PositiveInt = Field(128, description="problems with longer chains")
    order: PositiveInt = Field(128, description="problems with two multiplications in a row")
    surface: PositiveInt = Field(128, description="problems whose slots are listed out of order")
    probe: PositiveInt = Field(600, description="problems whose traces are read for hidden states")
    traces: PositiveInt = Field(1, description="the teacher's traces of each training problem")


class Arm(Settings):
    """One way to train, as a recipe laid over `StudySettings.recipe`; or a model that is evaluated and not trained.

    The tables that its method reads come from the study: curated traces, problems, text (pretrain, cpt), or pairs of
    a right trace and a wrong answer of the start's own (dpo).
    """

    recipe: dict[str, Any] = Field({}, description="training settings, laid over the study's `recipe`")
    model: str | None = Field(
        None, description="in place of a recipe, on public data: folder or hub name of a checkpoint that is evaluated"
    )
    model_changes: ModelChanges = Field(ModelChanges(), description="what is changed in `model`")
    start: str = Field(BASE, description="the arm whose checkpoint it starts from")
    seeds: PositiveInt | None = Field(None, description="how many of the study's seeds it runs on; None: all")
    title: str = Field("", description="name in figures")
    rungs: tuple[str, ...] | None = Field(None, description="the rungs that it runs at; None: all")
    phase: NonNegativeInt = Field(0, description="when its jobs come in a study with rungs; 0: first")
    teacher: Teacher = Field("right", description="who wrote its traces, in a study with rungs")
    split: Literal["test", "gap"] = Field("test", description="problems of training and testing, with rungs")
    distill_from: str | None = Field(
        None, description="with rungs: the arm whose checkpoint is the teacher of on-policy distillation"
    )

    @model_validator(mode="after")
    def _recipe_or_model(self) -> Arm:
        if bool(self.recipe) == (self.model is not None):
            raise ValueError(
                "an arm has a recipe, by which it is trained, or a model, which is evaluated: one of them."
            )
        return self


class Rung(Settings):
    """A habit of the base, given to the skill base of each seed by mid-training.

    With `first` the rung's base is the first checkpoint, of those that are kept `every` so many steps, at which the
    teacher's first token has at least that probability under the question; without it, the last one.
    """

    habit: float = Field(0.0, ge=0, le=1, description="share of the mid-training's questions answered in steps")
    steps: NonNegativeInt = Field(0, description="optimizer steps of mid-training; 0: the skill base itself")
    every: PositiveInt = Field(4, description="steps between the checkpoints among which `first` chooses")
    recipe: dict[str, Any] = Field({}, description="laid over `mid_training`")
    first: float | None = Field(None, gt=0, lt=1, description="least probability of the teacher's first token")
    pass_rate: float = Field(1.0, gt=0, le=1, description="highest pass rate of the base: a gate")
    phase: NonNegativeInt = Field(0, description="when its jobs come; 0: first")
    title: str = Field("", description="name in figures")


class Evaluation(Settings):
    """What is sampled from each checkpoint on each split, besides one greedy completion a problem."""

    samples: int = Field(16, ge=3, description="of a problem, at temperature 1; a vote of two is a draw")
    max_tokens: PositiveInt = Field(80, description="longest response, EOS counted")
    deep_samples: NonNegativeInt = Field(
        0, description="of a problem of the fixed deep set, in distribution; 0: no deep pass@k"
    )
    deep_problems: PositiveInt = Field(64, description="problems of the deep set")
    deep_arms: tuple[str, ...] = Field((BASE, "grpo", "luffy"), description="arms that the deep set is asked of")
    temperatures: tuple[float, ...] = Field((), description="of the sweep in distribution; (): none")
    sweep_samples: PositiveInt = Field(16, description="of a problem at each temperature of the sweep")
    pass_samples: PositiveInt = Field(
        4_096,
        description="with rungs: completions, begun with a label, by which a base's pass rate is measured; weighted by "
        "the label's probability P they are as exact as that many / P free ones",
    )


class Gates(Settings):
    """What must hold before a conclusion is drawn."""

    skill: float = Field(0.95, description="least forced-step accuracy of the base, at every length")
    imitation: float = Field(0.80, description="least greedy accuracy of SFT in distribution; 0: no such gate")
    guess: float = Field(0.02, description="highest score of a guess")


class Probing(Settings):
    """Which hidden states are probed for what. `protocol` is laid over the probing protocol's own settings."""

    features: tuple[str, ...] = Field(
        ("result_parity", "next_operator", "step_kind@step_start-1", "step_correct"),
        description="features, each read at its own place or where FEATURE@POSITION says; (): nothing is probed",
    )
    arms: tuple[str, ...] | None = Field(None, description="arms beside the base; None: all")
    position: str | None = Field(
        None, description="where features are read that name no place themselves, such as step_end-2; None: their own"
    )
    traces_per_problem: PositiveInt = Field(1, description="traces of each probing problem that every model reads")
    own_rollouts: tuple[str, ...] = Field(
        (), description="arms whose rollouts (first seed) are read too, by every model: arm × source"
    )
    protocol: dict[str, Any] = Field({}, description="settings of the probing protocol, such as fit or max_rows")
    rungs: tuple[str, ...] = Field(
        ("sealed",), description="of a study with rungs: where its one feature is read, at the last step of a trace"
    )
    split: Literal["test", "gap"] = Field(
        "test", description="of a study with rungs: the problems that are read; gap: at the step of ^, not the last"
    )

    @model_validator(mode="after")
    def _positions_and_protocol_known(self) -> Probing:
        if self.features:  # a mistake is told now, not after the last training run
            self.full_protocol()
        for feature in self.features:
            name, pinned, position = feature.rpartition("@")
            if pinned and name in FEATURES:
                parse_position(position)
        return self

    def full_protocol(self) -> ProtocolSettings:
        """The probing protocol that these settings ask for. Raises SettingsError."""
        tree = {"base": BASE, "features": self.features, "position": self.position}
        return build_settings(ProtocolSettings, tree | self.protocol, "probing.protocol")


class GivenBase(Settings):
    """`[base]` of a study on public data: a model that stands, and what is changed in it for all that is done."""

    model: str = Field(description="folder or hub name")
    model_changes: ModelChanges = Field(ModelChanges(), description="what is changed in its configuration")


class PublicData(Settings):
    """`[data]`: public problems and traces in place of the embedded world.

    The base is then given (`GivenBase`) and the same for all seeds, which vary the arms.
    """

    folder: Path = Field(Path(), description="where relative paths of sets and sources begin")
    curation: dict[str, Any] | None = Field(
        None, description="a recipe of `tracekit curate`, or the name of one that comes with the package"
    )
    curated: Path | None = Field(None, description="or a CURATED table that was made before")
    problems: PositiveInt | None = Field(
        None, description="of training, drawn by the study's seed; None: all that have a curated trace"
    )
    held_out: PositiveInt = Field(
        200, description="problems that no arm trains on, whose curated traces are read for hidden states"
    )
    taught: PositiveInt = Field(256, description="curated traces whose tokens' probabilities are measured")
    sets: tuple[ProblemSet, ...] = Field(
        min_length=1, description='sets of evaluation, or the name of a recipe of sets, such as "benchmarks"'
    )
    shifted: tuple[str, ...] = Field((), description="names of the sets that are out of distribution")
    temperature: PositiveFloat = Field(1.0, description="of samples")
    asking: dict[str, Any] = Field(
        {}, description="laid over the settings of each evaluation: engine, dtype, prompt_tokens, …"
    )
    reading: dict[str, Any] = Field(
        {}, description="laid over how hidden states are read: layers, stored, token_budget"
    )
    launch: tuple[str, ...] = Field(
        (), description='command that starts a training run: ["torchrun", …]; (): it runs in the worker\'s process'
    )

    @field_validator("curation", mode="before")
    @classmethod
    def _curation_by_name(cls, value: Any) -> Any:
        return _recipe(value) if isinstance(value, str) else value

    @field_validator("sets", mode="before")
    @classmethod
    def _sets_by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        recipe = _recipe(value)
        shared = {"samples": recipe["samples"]} if "samples" in recipe else {}
        return [shared | one for one in recipe.get("sets", [])]

    @model_validator(mode="after")
    def _consistent(self) -> PublicData:
        if (self.curation is None) == (self.curated is None):
            raise ValueError("expected exactly one of curation (a recipe) and curated (a table that stands).")
        names = [set_name(one) for one in self.sets]
        wrong = [name for name in names if names.count(name) > 1 or name in RESERVED or "/" in name]
        if wrong:
            raise ValueError(
                f"sets: {wrong[0]} names a set; each needs a name of its own, not {', '.join(RESERVED)}, and no slash."
            )
        unknown = [name for name in self.shifted if name not in names]
        if unknown:
            raise ValueError(f"shifted names {unknown[0]}; the sets are {', '.join(names)}.")
        return self


def set_name(one: ProblemSet) -> str:
    """How a set is called."""
    return one.name or Path(one.path).stem


def _recipe(name: str) -> dict[str, Any]:
    """A recipe in TOML by its path, or by its name where it comes along; where it writes to does not count here."""
    try:
        tree = read_toml(find_recipe(name, "tracekit"))
    except SettingsError as error:
        raise ValueError(str(error)) from error
    return {key: value for key, value in tree.items() if key != "output"}


class StudySettings(Settings):
    """Settings of a whole study; docs/settings.md lists each field.

    Examples
    --------
    >>> from tracekit import StudySettings
    >>> StudySettings(seeds=[0, 1]).seeds
    (0, 1)
    """

    output: Path = Field(Path("runs/study"), description="folder of the study")
    title: str = Field(
        "Does imitation or RL change what is linearly separable? And what does LUFFY buy?",
        description="title of its page",
    )
    seed: NonNegativeInt = Field(0, description="of world, problems and the teacher's traces")
    seeds: tuple[NonNegativeInt, ...] = Field((0,), description="of base and training runs: the replicates")
    workers: PositiveInt = Field(2, description="processes on this machine, one thread each")
    world: World = Field(World(), description="what the embedded world is made of")
    problems: ProblemCounts = Field(ProblemCounts(), description="problems of each split")
    corpus: PositiveInt = Field(44_800, description="documents that a base is pre-trained on")
    base: dict[str, Any] = Field({}, description="recipe of the base's training; on public data the given model")
    base_attempts: PositiveInt = Field(
        3, description="trainings of a base, each twice as long, until its skill passes its gate"
    )
    recipe: dict[str, Any] = Field({}, description="training settings that all arms share")
    arms: dict[str, Arm] = Field({}, description="name → one way to train")
    evaluation: Evaluation = Field(Evaluation(), description="what is sampled from each checkpoint")
    gates: Gates = Field(Gates(), description="what must hold before a conclusion is drawn")
    probing: Probing = Field(Probing(), description="which hidden states are probed for what")
    grid: dict[str, list[Any]] = Field({}, description="key.sub → values: a study at each point of the grid")
    data: PublicData | None = Field(None, description="public data; None: the embedded world")
    rungs: dict[str, Rung] = Field({}, description="habits of the base, at each of which the arms are run")
    registration: Path | None = Field(None, description="prereg.json of a study with rungs")
    claims: Literal["sealed", "quick", "hybrids"] = Field("sealed", description="claims of a study with rungs")
    mid_training: dict[str, Any] = Field({}, description="recipe of the training that gives a skill base its habit")

    @model_validator(mode="after")
    def _consistent(self) -> StudySettings:
        if BASE in self.arms:
            raise ValueError(f"an arm may not be called {BASE}: that is what the arms start from.")
        if TEACHER in self.arms:
            raise ValueError(f"an arm may not be called {TEACHER}: the tables give that name to the teacher itself.")
        for name, arm in self.arms.items():
            if arm.start != BASE and arm.start not in self.arms:
                raise ValueError(f"arm {name} starts from {arm.start}; known: {BASE}, {', '.join(self.arms)}.")
            if arm.distill_from is not None and arm.distill_from not in self.arms:
                raise ValueError(f"arm {name} distils from {arm.distill_from}; known: {', '.join(self.arms)}.")
            if "." in name or "/" in name:
                raise ValueError(f"arm {name}: a name holds no dot and no slash.")
        for key, named in (("own_rollouts", self.probing.own_rollouts), ("arms", self.probing.arms or ())):
            unknown = [name for name in named if name not in (BASE, *self.arms)]
            if unknown:
                raise ValueError(f"probing.{key} names {unknown[0]}; known: {BASE}, {', '.join(self.arms)}.")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be distinct, and at least one.")
        if self.data is not None:
            _check_public(self)
        given = [name for name, arm in self.arms.items() if arm.model is not None]
        if given and self.data is None:
            raise ValueError(f"arm {given[0]} names a model; in the embedded world every arm is trained.")
        wrong = [name for name in self.rungs if "-" in name or "/" in name or name in (BASE, *self.arms)]
        if wrong or (self.rungs and self.data is not None):
            raise ValueError(f"rungs: {wrong[0] if wrong else 'a study on public data has none'}.")
        return self

    # ---------------------------------------------------------------- what is evaluated

    @property
    def splits(self) -> tuple[str, ...]:
        """Every set of problems that checkpoints are evaluated on."""
        return SPLITS if self.data is None else tuple(set_name(one) for one in self.data.sets)

    @property
    def shifted(self) -> tuple[str, ...]:
        """Those that are out of distribution."""
        return SPLITS[1:] if self.data is None else self.data.shifted

    @property
    def in_distribution(self) -> tuple[str, ...]:
        """Those that are in distribution."""
        return tuple(split for split in self.splits if split not in self.shifted)

    @property
    def repeated(self) -> tuple[str, ...]:
        """Those in distribution with samples enough for votes, coverage and paths."""
        return tuple(split for split in self.in_distribution if self.samples_of(split) >= VOTERS)

    def samples_of(self, split: str) -> int:
        """Samples of a problem, beside the greedy completion."""
        own = {} if self.data is None else {set_name(one): one.samples for one in self.data.sets}
        return own.get(split) or self.evaluation.samples

    @property
    def temperature(self) -> float:
        """At which checkpoints are sampled."""
        return 1.0 if self.data is None else self.data.temperature

    # ---------------------------------------------------------------- what is run

    @property
    def given_base(self) -> GivenBase:
        """The base of a study on public data. Raises SettingsError where `[base]` names none."""
        return build_settings(GivenBase, self.base, "base")

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
        return [(name, seed) for name in ordered for seed in self.run_seeds(name)]

    def probed(self) -> tuple[str, ...]:
        """The arms whose hidden states are read, the base first; () where nothing is probed."""
        if not self.probing.features:
            return ()
        chosen = self.arms if self.probing.arms is None else self.probing.arms
        return (BASE, *(arm for arm in chosen if arm != BASE))

    def run_seeds(self, name: str) -> tuple[int, ...]:
        """The seeds of an arm's own checkpoints: a given model is one, whatever the seed."""
        given = self.data is not None if name == BASE else self.arms[name].model is not None
        return self.seeds[:1] if given else self.seeds_of(name)

    def run_name(self, name: str, seed: int) -> str:
        """Arm and seed of the checkpoint that stands for an arm at a seed."""
        return f"{name}-{seed if seed in self.run_seeds(name) else self.run_seeds(name)[0]}"

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The seeds at which an arm is compared. An arm's start must have run on them too."""
        if name == BASE:
            return self.seeds
        arm = self.arms[name]
        own = self.seeds if arm.seeds is None else self.seeds[: arm.seeds]
        return tuple(seed for seed in own if seed in self.seeds_of(arm.start))


def _check_public(settings: StudySettings) -> None:
    """What can be said of a study on public data before a file is read. Raises ValueError."""
    given = settings.given_base
    if not settings.repeated:
        raise ValueError(f"data.sets: at least one set in distribution needs {VOTERS} samples of a problem or more.")
    positions = given.model_changes.max_positions
    for name, tree in (
        ("recipe", settings.recipe),
        *((f"arms.{n}.recipe", a.recipe) for n, a in settings.arms.items()),
    ):
        own = {"model", "model_changes", "new_model"} & tree.keys()
        if own:
            raise ValueError(f"{name}.{min(own)}: every arm starts from the same base; say it in [base].")
        # hidden states and token probabilities are read through the model's own template
        prompt = {"system_prompt", "chat_template"} & tree.get("data", {}).keys()
        if prompt:
            raise ValueError(
                f"{name}.data.{min(prompt)}: the prompt is the base's; set base.model_changes.chat_template."
            )
    longest = settings.evaluation.max_tokens
    if positions is not None and longest > positions:
        raise ValueError(f"evaluation.max_tokens is {longest}; the base's window (base.model_changes) is {positions}.")
