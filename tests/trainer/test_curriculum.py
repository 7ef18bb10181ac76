"""Curriculum by pass rate: worked by hand, and a run that goes on with the same problems after a checkpoint."""

import itertools

import polars as pl
import pytest

from tracekit.core.settings import SettingsError, build_settings
from trainer.data.curriculum import Curriculum, Draws, Standing
from trainer.data.problems import Problem
from trainer.settings import CurriculumSettings, TrainSettings
from trainer.train import train

PROBLEMS = [Problem(name, "", "", []) for name in "abcd"]


def test_a_pass_rate_is_smoothed_and_decides_who_rests():
    curriculum = Curriculum(CurriculumSettings(low=0.1, high=0.9, decay=0.5, rest_rounds=2))
    curriculum.take_in({"a": 1.0, "b": 0.5, "c": 0.0}, 0)
    # after one round the rates are the round's own: a is above 0.9 and c below 0.1
    assert curriculum.awake(PROBLEMS, 1, needed=1) == {1, 3}
    assert curriculum.awake(PROBLEMS, 2, needed=1) == {1, 3}
    assert curriculum.awake(PROBLEMS, 3, needed=1) == {0, 1, 2, 3}  # two rounds of rest are over
    curriculum.take_in({"a": 0.75, "c": 0.25}, 3)
    # a: (1 + 0.75) / 2 = 0.875, c: (0 + 0.25) / 2 = 0.125
    assert curriculum.standings["a"] == Standing(0.875, 3)
    assert curriculum.standings["c"] == Standing(0.125, 3)
    assert curriculum.awake(PROBLEMS, 4, needed=1) == {0, 1, 2, 3}


def test_all_problems_are_asked_where_too_few_are_left(caplog):
    curriculum = Curriculum(CurriculumSettings(low=0.1, high=0.9))
    curriculum.take_in(dict.fromkeys("abc", 1.0), 0)
    assert curriculum.awake(PROBLEMS, 1, needed=2) == {0, 1, 2, 3}
    assert "1 of 4 problems are within the curriculum and 2 are needed" in caplog.text
    assert curriculum.awake(PROBLEMS, 1, needed=1) == {3}


def test_the_table_of_a_checkpoint_restores_it():
    curriculum = Curriculum(CurriculumSettings(low=0.2))
    curriculum.take_in({"b": 0.0, "a": 1 / 3}, 4)
    again = Curriculum(CurriculumSettings(low=0.2))
    again.restore(curriculum.table())
    assert again.standings == curriculum.standings
    assert again.table().equals(curriculum.table())


def test_draws_count_the_places_of_resting_problems_too():
    draws = Draws(itertools.cycle(range(4)), frozenset({1, 3}))
    assert list(itertools.islice(draws, 3)) == [1, 3, 1]
    assert draws.places == 6  # 0 1 2 3 0 1
    everything = Draws(itertools.cycle(range(4)))
    assert list(itertools.islice(everything, 3)) == [0, 1, 2]
    assert everything.places == 3


def test_a_range_without_room_is_refused():
    tree = {"method": "grpo", "model": "m", "output": "o", "data": {"problems": "p"}}
    tree["rollout"] = {"curriculum": {"low": 0.9, "high": 0.1}}
    with pytest.raises(SettingsError, match="expected low ≤ high"):
        build_settings(TrainSettings, tree, "settings")


def test_a_run_asks_within_the_curriculum_and_goes_on_with_it(world_folder, tmp_path):
    """Of four problems the reward calls one hopeless: it is asked once, and after a restart not again."""
    table = pl.read_parquet(world_folder / "problems.parquet").head(4)
    table.write_parquet(tmp_path / "problems.parquet")
    hopeless = table["problem_id"][0]
    reward = tmp_path / "reward.py"
    reward.write_text(f"def score(problem_id, **_):\n    return [float(name != {hopeless!r}) for name in problem_id]\n")

    def settings(folder, steps):
        return TrainSettings.model_validate(
            {
                "method": "grpo",
                "output": tmp_path / folder,
                "new_model": {"tokenizer": world_folder / "tokenizer", "hidden_size": 32, "layers": 1, "heads": 2},
                "data": {"problems": tmp_path / "problems.parquet", "response_tokens": 10},
                "rollout": {
                    "prompts": 1,
                    "mini_batch_prompts": 1,
                    "group_size": 2,
                    "rewards": [{"path": f"{reward}:score"}],
                    "curriculum": {"low": 0.1, "rest_rounds": 100},
                },
                "checkpoint": {"every": 1},
                "steps": steps,
                "threads": 1,
            }
        )

    def asked(folder):
        files = sorted((tmp_path / folder / "completions").glob("*.parquet"))
        return [pl.read_parquet(file)["problem_id"][0] for file in files]

    train(settings("whole", 12))
    train(settings("two parts", 6))
    train(settings("two parts", 12))
    assert asked("whole").count(hopeless) == 1
    assert len(asked("whole")) == 12
    assert asked("two parts") == asked("whole")
    final = [tmp_path / folder / "final" / "model.safetensors" for folder in ("whole", "two parts")]
    assert final[0].read_bytes() == final[1].read_bytes()
