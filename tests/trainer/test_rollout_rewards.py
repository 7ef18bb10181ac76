"""Rewards as a setting: TRL's call shape, several terms with weights, "don't know", truncation, a user's function."""

import math
import textwrap

import polars as pl
import pytest

from tracekit.core.settings import SettingsError, build_settings
from tracekit.core.tables import PROBLEMS
from trainer.data.problems import Problem, Trace, load_problems
from trainer.loops.policy import totals_of
from trainer.loops.run_state import open_run
from trainer.modeling.models import load_tokenizer
from trainer.objectives.batch import Role
from trainer.rollouts.groups import Group, Sample, with_advantages, with_roles
from trainer.rollouts.rewards import BUILT_IN, RewardError, Rewards, over_long, weighted_rewards
from trainer.rollouts.rollout import training_row
from trainer.settings import TrainSettings
from trainer.settings.rollout import BUILT_IN_REWARDS
from trainer.train import train


def settings(rewards=None, **changes):
    tree = {
        "method": "grpo",
        "model": "unused",
        "output": "unused",
        "data": {"problems": "unused", "response_tokens": 20},
        "rollout": {"prompts": 2, "mini_batch_prompts": 1},
    }
    if rewards is not None:
        tree["rollout"]["rewards"] = rewards
    for name, value in changes.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    return build_settings(TrainSettings, tree, "settings")


@pytest.fixture(scope="module")
def tokenizer(world_folder):
    return load_tokenizer(world_folder / "tokenizer")


@pytest.fixture
def chat(world_folder):
    tokenizer = load_tokenizer(world_folder / "tokenizer")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    return tokenizer


PROBLEM = Problem("p", "What is 2+2?", "4", [1, 2, 3], columns={"problem_id": "p", "level": 3.0})


def row(text, tokens=5, finish="stop", **changes):
    return Sample(list(range(tokens)), 0, finish, response=text, **changes)


def reward_file(folder, body):
    path = folder / "my_reward.py"
    path.write_text(textwrap.dedent(body))
    return path


def judged(config, tokenizer, rows, problem=PROBLEM):
    rewards = Rewards.open(config, tokenizer)
    return rewards.paid(Group(problem, tuple(rewards.judge([problem] * len(rows), rows))))


# The sum


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ([(1.0, 0.0), (0.0, 1.0)], [1.0, 0.2], [1.0, 0.2]),
        ([(1.0, 1.0), (None, 1.0)], [1.0, 0.2], [1.2, None]),  # a timeout is not a wrong answer
        ([(None, 1.0), (None, 0.0)], [1.0, 0.2], [0.2, 0.0]),  # a term for other problems
        ([(None,), (None,)], [1.0], [None, None]),
        ([(-1.0, 0.5)], [0.5, -2.0], [-1.5]),
        ([], [1.0], []),
    ],
)
def test_the_reward_is_the_weighted_sum_of_what_is_known(values, weights, expected):
    assert weighted_rewards(values, weights) == pytest.approx(expected)


def test_an_unknown_reward_is_left_out_of_mean_and_deviation_and_has_no_advantage():
    samples = tuple(row("", reward=reward) for reward in (1.0, 0.0, None, 0.2))
    for std in (False, True):
        (group,) = with_advantages([Group(PROBLEM, samples)], settings(advantage={"std": std}))
        deviation = math.sqrt(sum((x - 0.4) ** 2 for x in (1.0, 0.0, 0.2)) / 2) + 1e-6 if std else 1.0
        expected = [0.6 / deviation, -0.4 / deviation, 0.0, -0.2 / deviation]
        assert [sample.advantage for sample in group.samples] == pytest.approx(expected)


# TRL's call shape


def test_a_function_is_called_once_with_trl_s_keyword_arguments(chat, tmp_path):
    path = reward_file(
        tmp_path,
        """
        CALLS = []
        def score(prompts, completions, completion_ids, level, solution, trainer_state, log_metric, scale=1, **columns):
            assert columns["problem_id"] == ["p", "p"]
            assert [message["role"] for message in prompts[0]] == ["system", "user"]
            assert [message["content"] for message in prompts[0]] == ["Be brief.", "What is 2+2?"]
            contents = [completion[0]["content"] for completion in completions]
            log_metric("longest", max(map(len, contents)))
            return [scale * (float(text == gold) + n) for text, gold, n in zip(contents, solution, level)]
        """,
    )
    config = settings([{"path": f"{path}:score", "arguments": {"scale": 2}}], data={"system_prompt": "Be brief."})
    rewards = Rewards.open(config, chat)
    rows = rewards.judge([PROBLEM] * 2, [row("4"), row("five")])
    assert [sample.rewards for sample in rows] == [(8.0,), (6.0,)]
    assert rewards.take_metrics() == {"longest": [4.0]}
    assert rewards.take_metrics() == {}


@pytest.mark.parametrize("name", ["accuracy_reward", "think_format_reward"])
def test_trl_s_own_reward_functions_run_unchanged(chat, name):
    trl_rewards = pytest.importorskip("trl.rewards")
    if name == "accuracy_reward":
        pytest.importorskip("math_verify")
    texts = ["<think>\ntwo and two\n</think>\nIt is $4$.", "It is $5$."]
    rows = [row(text) for text in texts]
    config = settings([{"path": f"trl.rewards:{name}"}])
    group = judged(config, chat, rows)
    expected = getattr(trl_rewards, name)(
        completions=[[{"role": "assistant", "content": text}] for text in texts], solution=["4", "4"]
    )
    assert [sample.reward for sample in group.samples] == expected


def test_a_coroutine_is_awaited_and_none_and_nan_are_not_known(tokenizer, tmp_path):
    path = reward_file(tmp_path, "async def score(completions, **_):\n    return [None, float('nan'), 1]\n")
    group = judged(settings([{"path": f"{path}:score"}]), tokenizer, [row("a"), row("b"), row("c")])
    assert [sample.reward for sample in group.samples] == [None, None, 1.0]
    assert [sample.right for sample in group.samples] == [None, None, True]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def score(**_):\n    return [1.0]\n", "gave 1 values for 2 completions"),
        ("def score(**_):\n    return [float('inf'), 0]\n", "infinite"),
        ("score = 3\n", "has no function score"),
    ],
)
def test_what_a_function_does_wrong_is_named(tokenizer, tmp_path, body, message):
    path = reward_file(tmp_path, body)
    with pytest.raises(RewardError, match=message):
        judged(settings([{"path": f"{path}:score"}]), tokenizer, [row("a"), row("b")])


def test_a_file_or_module_that_is_not_there_is_named(tokenizer):
    with pytest.raises(RewardError, match=r"nowhere\.py does not exist"):
        Rewards.open(settings([{"path": "nowhere.py:score"}]), tokenizer)
    with pytest.raises(RewardError, match="no module nowhere"):
        Rewards.open(settings([{"path": "nowhere:score"}]), tokenizer)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([{"name": "accurate"}], "no reward is named 'accurate'"),
        ([{"weight": 0.5}], "needs name"),
        ([{"path": "my_reward.py"}], "expected FILE.py:FUNCTION"),
        ([{"name": "accuracy"}, {"name": "accuracy"}], "give each its own name"),
        ([], "at least 1"),
    ],
)
def test_settings_that_name_no_reward_are_refused(rewards, message):
    with pytest.raises(SettingsError, match=message):
        settings(rewards)


def test_settings_and_code_know_the_same_rewards():
    assert {"accuracy", *BUILT_IN} == set(BUILT_IN_REWARDS)


# Built-in rewards


def test_accuracy_and_format_are_weighed_and_the_first_says_what_is_right(tokenizer):
    config = settings([{"name": "accuracy"}, {"name": "format", "weight": 0.2}])
    texts = ["<think>2+2</think>\\boxed{4}", "\\boxed{4}", "<think>2+2</think>\\boxed{5}", "five"]
    group = judged(config, tokenizer, [row(text) for text in texts])
    assert [sample.reward for sample in group.samples] == pytest.approx([1.2, 1.0, 0.2, 0.0])
    assert [sample.right for sample in group.samples] == [True, True, False, False]
    assert group.pass_rate == 0.5


def test_a_restated_answer_of_the_prompt_does_not_pay(tokenizer):
    problem = Problem("p", "Is \\boxed{4} right?", "4", [1, 2])
    group = judged(settings(), tokenizer, [row("Is \\boxed{4} right?"), row("Yes: \\boxed{4}")], problem)
    assert [sample.reward for sample in group.samples] == [0.0, 1.0]


@pytest.mark.parametrize(("tokens", "penalty"), [(1, 0.0), (16, 0.0), (17, -0.25), (18, -0.5), (20, -1.0), (30, -1.0)])
def test_the_over_long_penalty_is_dapo_s_equation_13(tokens, penalty):
    function = over_long(20, cache_tokens=4)  # by hand: ((20 − 4) − |y|) / 4 between 16 and 20
    assert function(completions=[""], completion_ids=[[0] * tokens]) == [penalty]


def test_an_over_long_penalty_that_cannot_be_made_is_refused(tokenizer):
    with pytest.raises(RewardError, match="expected 0 < cache_tokens <= limit"):
        Rewards.open(settings([{"name": "over_long", "arguments": {"cache_tokens": 30}}]), tokenizer)


def test_the_penalty_begins_a_fifth_before_the_limit_where_nothing_is_said() -> None:
    function = over_long(20)  # as DAPO's 4,096 of 20,480
    assert [function(completion_ids=[[0] * tokens])[0] for tokens in (16, 18, 20)] == [0.0, -0.5, -1.0]


def test_traces_are_verified_only_where_accuracy_is_a_reward(tokenizer):
    traces = [Trace("t", "\\boxed{5}", [1], None)]
    assert Rewards.open(settings(), tokenizer).traces_right(PROBLEM, traces) == [False]
    config = settings([{"name": "format"}])
    assert Rewards.open(config, tokenizer).traces_right(PROBLEM, traces) == [True]


# Truncated responses


def test_truncated_responses_stay_in_the_statistics_and_out_of_the_loss():
    config = settings(rollout={"truncated": "mask"})
    rows = (row("", 4, reward=1.0), row("", 20, "length", reward=0.0), row("", 6, reward=0.0))
    (group,) = with_roles(with_advantages([Group(PROBLEM, rows)], config), config, 0)
    assert [sample.advantage for sample in group.samples] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert [sample.role for sample in group.samples] == [Role.SURROGATE, Role.LEFT_OUT, Role.SURROGATE]
    trained = [training_row(PROBLEM, sample, old_log_probs=False) for sample in group.samples]
    assert [item.left_out for item in trained] == [False, True, False]
    totals = totals_of(trained, config)
    assert (totals.rows, totals.tokens) == (3, 10)  # TRL: the row counts, its tokens do not
    scored = settings()
    (group,) = with_roles(with_advantages([Group(PROBLEM, rows)], scored), scored, 0)
    assert totals_of([training_row(PROBLEM, s, old_log_probs=False) for s in group.samples], scored).tokens == 30


# A run


def test_further_columns_of_the_problems_table_reach_the_function(world_folder, tokenizer, tmp_path):
    table = pl.read_parquet(world_folder / "problems.parquet").with_columns(pl.lit(["a", "b"]).alias("tests"))
    table.write_parquet(tmp_path / "problems.parquet")
    config = settings(data={"problems": tmp_path / "problems.parquet", "response_tokens": 40})
    problems, _ = load_problems(config, tokenizer)
    assert problems[0].columns["tests"] == ["a", "b"]
    assert set(PROBLEMS) < set(problems[0].columns)


def test_a_run_pays_by_the_user_s_function_and_logs_each_term(world_folder, tmp_path):
    path = reward_file(
        tmp_path,
        "def score(completion_ids, **_):\n"
        "    return [None if n % 7 == 0 else n / 40 for n in map(len, completion_ids)]\n",
    )
    run = settings(
        [{"path": f"{path}:score", "name": "length"}, {"name": "accuracy", "weight": 0.5}],
        model=None,
        new_model={"tokenizer": world_folder / "tokenizer", "hidden_size": 32, "layers": 1, "heads": 2},
        output=tmp_path / "run",
        data={"problems": world_folder / "problems.parquet", "response_tokens": 40},
        rollout={"prompts": 2, "mini_batch_prompts": 2, "group_size": 4},
        steps=2,
        threads=1,
    )
    train(run)
    metrics = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics["rewards/accuracy"].to_list() == [0.0, 0.0]
    assert all(0 < value < 1 for value in metrics["rewards/length"].to_list())
    rows = pl.read_parquet(tmp_path / "run" / "completions" / "round-000001.parquet")
    known = rows.filter(pl.col("token_count") % 7 != 0)
    assert known["reward"].to_list() == pytest.approx([n / 40 for n in known["token_count"].to_list()])
    assert rows.filter(pl.col("token_count") % 7 == 0)["reward"].null_count() == rows.height - known.height
    assert metrics["rewards/length/unknown"][0] == pytest.approx(1 - known.height / rows.height)
    assert rows["outcome"].null_count() == 0  # the verifier's, logged beside
    path.write_text("def score(completion_ids, **_):\n    return [0.0 for _ in completion_ids]\n")
    with pytest.raises(ValueError, match="reward length"):  # another function is another run
        open_run(run)
