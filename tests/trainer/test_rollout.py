"""Groups, rewards, filters, prefixes and replay, with an engine that says what it is told."""

import itertools
from dataclasses import dataclass, field

import pytest

from evaluators.verdict import Outcome, Verdict
from trainer.data.problems import Problem, ProblemError, Trace, endless_order, load_problems
from trainer.data.replay import ReplayBuffer
from trainer.modeling.models import load_tokenizer
from trainer.rollouts import rewards as verification
from trainer.rollouts.engines.protocol import Rollout
from trainer.rollouts.rollout import Group, GroupSampler, Sample, prefix_fraction, training_row, with_advantages
from trainer.settings import PrefixSettings, ReplaySettings, TrainSettings

END = 2  # <eos> of the world's tokenizer


@dataclass
class ScriptedEngine:
    """Answers each prompt with the next of its texts, round and round; remembers what it was asked."""

    tokenizer: object
    texts: list[str]
    asked: list[tuple[int, int, int]] = field(default_factory=list)  # prompts, n, max_tokens
    exact: bool = True
    live: bool = True

    def generate(self, prompts, n, sampling):
        self.asked.append((len(prompts), n, sampling.max_tokens))
        source = itertools.cycle(self.texts)
        return [[self._rollout(next(source), sampling.max_tokens) for _ in range(n)] for _ in prompts]

    def _rollout(self, text, limit):
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], END][:limit]
        return Rollout(ids, [-0.5] * len(ids), "stop" if ids[-1] == END else "length")


RIGHT, WRONG, NOTHING = "\\boxed{ ( 1 , 2 ) }", "\\boxed{ ( 3 , 4 ) }", "A +1 4"


@pytest.fixture(scope="module")
def tokenizer(world_folder):
    return load_tokenizer(world_folder / "tokenizer")


def problem(tokenizer, name="p", traces=(RIGHT,)):
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    own = tuple(Trace(f"{name}-{i}", text, [*ids(text), END], None) for i, text in enumerate(traces))
    return Problem(name, "5 A +1 ?", "(1, 2)", ids("5 A +1 ?"), own)


def settings(**changes):
    tree = {
        "method": "luffy",
        "model": "unused",
        "output": "unused",
        "data": {"problems": "unused", "curated": "unused", "response_tokens": 20},
        "rollout": {"prompts": 2, "mini_batch_prompts": 1},
    }
    for name, value in changes.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainSettings.model_validate(tree)


def roll_out(tokenizer, texts, problems, wanted=1, replayed=None, number=0, **changes):
    engine = ScriptedEngine(tokenizer, texts)
    sampler = GroupSampler(settings(**changes), tokenizer, engine, problems)
    order = itertools.cycle(range(len(problems)))
    return sampler.roll_out(number, wanted, order, replayed or {}), engine


def test_a_luffy_group_is_the_whole_teacher_trace_and_seven_sampled_rows(tokenizer):
    rolled, engine = roll_out(tokenizer, [RIGHT, WRONG, WRONG], [problem(tokenizer)])
    (group,) = rolled.groups
    assert [sample.on_policy for sample in group.samples] == [False] + [True] * 7
    assert engine.asked == [(1, 7, 20)]
    teacher = group.samples[0]
    assert teacher.token_ids[-1] == END
    assert teacher.off_policy == len(teacher.token_ids)
    assert teacher.verdict.correct
    rewards = [1, 1, 0, 0, 1, 0, 0, 1]
    assert [sample.reward for sample in group.samples] == rewards
    assert [sample.advantage for sample in group.samples] == pytest.approx([reward - 4 / 8 for reward in rewards])


@pytest.mark.parametrize("traces", [(), (WRONG,)])
def test_a_problem_without_a_verified_trace_gets_eight_sampled_rows_and_is_counted(tokenizer, traces):
    rolled, engine = roll_out(tokenizer, [RIGHT, WRONG], [problem(tokenizer, traces=traces)])
    assert [sample.on_policy for sample in rolled.groups[0].samples] == [True] * 8
    assert engine.asked == [(1, 8, 20)]
    assert rolled.counts["groups_short_of_teacher"] == 1


def test_groups_with_and_without_a_teacher_are_asked_apart(tokenizer):
    problems = [problem(tokenizer, "a"), problem(tokenizer, "b", traces=()), problem(tokenizer, "c")]
    rolled, engine = roll_out(tokenizer, [WRONG], problems, wanted=3)
    assert engine.asked == [(2, 7, 20), (1, 8, 20)]
    assert [len(group.samples) for group in rolled.groups] == [8, 8, 8]
    assert [group.problem.problem_id for group in rolled.groups] == ["a", "b", "c"]


def test_rl_sft_samples_a_whole_group_beside_its_teacher_row(tokenizer):
    rolled, _ = roll_out(tokenizer, [RIGHT, WRONG], [problem(tokenizer)], method="rl_sft")
    teacher, *own = rolled.groups[0].samples
    assert teacher.teacher
    assert len(own) == 8
    assert teacher.advantage == 0.0
    assert [sample.advantage for sample in own] == [0.5, -0.5] * 4


def test_what_the_verifier_cannot_tell_is_no_reward_and_no_part_of_the_mean(tokenizer, monkeypatch):
    outcomes = {RIGHT: Outcome.CORRECT, WRONG: Outcome.WRONG, NOTHING: Outcome.TIMEOUT}

    def verdicts(responses, golds, **_):
        return [Verdict(outcomes[response], None, gold, "", "") for response, gold in zip(responses, golds)]

    monkeypatch.setattr(verification, "verify_batch", verdicts)
    rolled, _ = roll_out(tokenizer, [RIGHT, WRONG, WRONG, NOTHING], [problem(tokenizer)], method="grpo")
    rewards = [sample.reward for sample in rolled.groups[0].samples]
    assert rewards == [1.0, 0.0, 0.0, None] * 2
    found = [sample.advantage for sample in rolled.groups[0].samples]
    assert found == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0.0] * 2)
    assert rolled.counts["verdicts_timeout"] == 2


def test_a_response_without_an_answer_earns_nothing(tokenizer):
    rolled, _ = roll_out(tokenizer, [NOTHING], [problem(tokenizer)], method="grpo")
    assert {sample.reward for sample in rolled.groups[0].samples} == {0.0}
    assert {sample.advantage for sample in rolled.groups[0].samples} == {0.0}


def test_filters_look_at_all_rows_the_teachers_too(tokenizer):
    drop = {"rollout": {"drop_all_wrong": True, "drop_all_right": True}}
    all_fail, _ = roll_out(tokenizer, [WRONG], [problem(tokenizer)], **drop)
    assert len(all_fail.groups) == 1  # beside a right teacher row it has signal
    without, _ = roll_out(tokenizer, [WRONG], [problem(tokenizer)], **{**drop, "method": "grpo"})
    assert not without.groups
    assert without.counts["groups_dropped_wrong"] == 1
    all_right, _ = roll_out(tokenizer, [RIGHT], [problem(tokenizer)], **drop)
    assert not all_right.groups
    assert all_right.counts["groups_dropped_right"] == 1


def test_resampling_goes_on_until_the_batch_is_full_or_the_rounds_are_over(tokenizer):
    class LuckyAtLast(ScriptedEngine):
        def generate(self, prompts, n, sampling):
            self.texts = [WRONG] if len(self.asked) < 2 else [RIGHT, WRONG]
            return super().generate(prompts, n, sampling)

    changes = {"method": "grpo", "rollout": {"drop_all_wrong": True, "resample_rounds": 5}}
    problems = [problem(tokenizer, name) for name in "abcd"]
    engine = LuckyAtLast(tokenizer, [])
    rolled = GroupSampler(settings(**changes), tokenizer, engine, problems).roll_out(
        0, 2, itertools.cycle(range(4)), {}
    )
    assert len(rolled.groups) == 2
    assert rolled.drawn == 6
    assert rolled.counts["groups_dropped_wrong"] == 4
    hopeless, _ = roll_out(tokenizer, [WRONG], problems, wanted=2, **changes)
    assert hopeless.drawn == 12
    assert not hopeless.groups


@pytest.mark.parametrize(("number", "wanted"), [(0, 0.8), (5, 0.6), (10, 0.4), (99, 0.4)])
def test_the_prefix_schedule_is_linear_then_constant(number, wanted):
    assert prefix_fraction(PrefixSettings(start=0.8, end=0.4, steps=10), number) == pytest.approx(wanted)


def test_the_policy_goes_on_from_a_prefix_of_the_teachers_trace(tokenizer):
    own = problem(tokenizer)  # 8 tokens: seven words and EOS
    half = {"teacher": {"prefix": {"start": 0.5, "end": 0.5}}}
    rolled, engine = roll_out(tokenizer, ["2 ) }"], [own], **half)
    begun = rolled.groups[0].samples[0]
    teacher_ids = own.traces[0].token_ids
    assert begun.off_policy == 4
    assert list(begun.token_ids) == list(teacher_ids)
    assert begun.log_probs == [0.0] * 4 + [-0.5] * 4
    assert begun.verdict.correct
    assert engine.asked[-1] == (1, 1, 20 - 4)
    row = training_row(own, begun, old_log_probs=True)
    assert row.off_policy == 4
    assert row.response_length == 8
    assert row.prompt_length == len(own.prompt_ids)


def test_a_continuation_ends_at_the_responses_limit(tokenizer):
    half = {"teacher": {"prefix": {"start": 0.5, "end": 0.5}}, "data": {"response_tokens": 6}}
    rolled, _ = roll_out(tokenizer, ["A +1 5 A +1 5"], [problem(tokenizer)], **half)
    begun = rolled.groups[0].samples[0]
    assert len(begun.token_ids) == 6
    assert begun.finish_reason == "length"


def test_problems_come_in_one_seeded_permutation_after_another():
    order = list(itertools.islice(endless_order(5, seed=1, start=0), 15))
    assert [sorted(order[i : i + 5]) for i in (0, 5, 10)] == [list(range(5))] * 3
    assert order[:5] != order[5:10]
    for start in (3, 5, 12):
        assert list(itertools.islice(endless_order(5, seed=1, start=start), 15 - start)) == order[start:]


def test_problems_are_read_with_their_correct_traces(world_folder, tokenizer):
    tables = {"problems": world_folder / "problems.parquet", "curated": world_folder / "curated.parquet"}
    problems, skipped = load_problems(settings(data={**tables, "response_tokens": 60}), tokenizer)
    assert len(problems) == 40
    assert all(len(own.traces) == 1 and own.traces[0].token_ids[-1] == END for own in problems)
    assert not skipped
    with pytest.raises(ProblemError, match="prompt over 3 tokens"):
        load_problems(settings(data={**tables, "prompt_tokens": 3}), tokenizer)


# Replay


def group(name, rewards, traces=None):
    samples = tuple(
        Sample([10 + i, END], 0, "stop", log_probs=[-1.0 - i, -0.1], reward=reward) for i, reward in enumerate(rewards)
    )
    return Group(Problem(name, "", "", [5]), samples)


def test_the_buffer_keeps_right_traces_of_problems_solved_sometimes():
    buffer = ReplayBuffer(ReplaySettings(traces_per_problem=2, start_reward=0.3))
    buffer.take_in([group("a", [1, 0, 1, 1]), group("b", [0, 0]), group("c", [1, 1])], mean_reward=0.2)
    assert list(buffer.past) == ["a"]
    assert [list(trace.token_ids) for trace in buffer.past["a"].traces] == [[12, END], [13, END]]
    assert buffer.past["a"].share == 0.75
    assert not buffer.open
    buffer.take_in([group("a", [1, 1])], mean_reward=0.3)
    assert not buffer.past  # solved every time: retired
    assert buffer.open


def test_the_trace_of_lowest_entropy_is_replayed_with_its_old_log_probs():
    buffer = ReplayBuffer(ReplaySettings(share=0.5, start_reward=0.0))
    buffer.take_in([group("a", [1, 1, 0]), group("b", [1, 0])], mean_reward=1.0)
    problems = [Problem("b", "", "", [5]), Problem("a", "", "", [5])]
    entropy = {10: 3.0, 11: 2.0}
    chosen = buffer.choose("key", 4, problems, lambda pairs: [entropy[s.token_ids[0]] for _, s in pairs])
    assert set(chosen) == {0, 1}
    (replayed,) = chosen[1]
    assert replayed.token_ids == [11, END]
    assert replayed.log_probs == [-2.0, -0.1]
    assert (replayed.replayed, replayed.off_policy, replayed.teacher) == (True, 2, False)
    assert len(buffer.choose("key", 2, problems, lambda pairs: [0.0] * len(pairs))) == 1  # half of two


def test_problems_near_the_centre_are_replayed_more_often():
    buffer = ReplayBuffer(ReplaySettings(share=1.0, start_reward=0.0, width=0.2))
    buffer.take_in([group("often", [1, 1, 1, 0]), group("half", [1, 0])], mean_reward=1.0)
    problems = [Problem("often", "", "", [5]), Problem("half", "", "", [5])]
    draws = [next(iter(buffer.choose(str(i), 1, problems, lambda p: [0.0] * len(p)))) for i in range(400)]
    weight = 0.4578  # exp(−0.25²/(2 · 0.2²))
    assert draws.count(0) / 400 == pytest.approx(weight / (1 + weight), abs=0.07)


def test_a_buffer_comes_back_from_its_table_as_it_was():
    buffer = ReplayBuffer(ReplaySettings(start_reward=0.0))
    buffer.take_in([group("b", [1, 1, 0]), group("a", [0, 1])], mean_reward=0.5)
    again = ReplayBuffer(buffer.settings)
    again.restore(buffer.table(), buffer.open)
    assert again.open
    assert again.past.keys() == {"a", "b"}
    assert again.table().equals(buffer.table())
    assert again.past == buffer.past


def test_a_replayed_row_stands_in_its_group_and_in_its_mean(tokenizer):
    past = Sample([*problem(tokenizer).traces[0].token_ids], 8, "stop", log_probs=[-0.2] * 8, replayed=True)
    rolled, engine = roll_out(
        tokenizer, [WRONG], [problem(tokenizer)], replayed={0: (past,)}, method="grpo", replay={"rows": 1}
    )
    assert engine.asked == [(1, 7, 20)]
    assert [sample.reward for sample in rolled.groups[0].samples] == [1.0] + [0.0] * 7
    assert rolled.groups[0].samples[0].advantage == pytest.approx(7 / 8)
    row = training_row(rolled.groups[0].problem, rolled.groups[0].samples[0], old_log_probs=False)
    assert row.old_log_probs == [-0.2] * 8
    assert row.replayed
    assert rolled.drawn == 0


def test_an_on_policy_baseline_leaves_the_teacher_out_of_the_mean():
    samples = (
        Sample([1], 1, "stop", reward=1.0),
        *(Sample([1], 0, "stop", reward=reward) for reward in (1.0, 0.0, 0.0, 0.0)),
    )
    groups = [Group(Problem("a", "", "", [5]), samples)]
    found = with_advantages(groups, settings(advantage={"baseline": "on_policy"}))[0].samples
    assert [sample.advantage for sample in found] == pytest.approx([0.75, 0.75, -0.25, -0.25, -0.25])
    deviation = 0.5  # of 1, 0, 0, 0, unbiased
    found = with_advantages(groups, settings(advantage={"baseline": "on_policy", "std": True}))[0].samples
    assert found[0].advantage == pytest.approx(0.75 / deviation, rel=1e-4)
