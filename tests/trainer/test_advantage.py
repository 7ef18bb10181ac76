import random
import statistics

import pytest
import torch

from trainer.objectives.advantage import centred, groups_with_signal, standardised


def slow(rewards, groups, baseline, std, epsilon=1e-6, unit_when_constant=False):
    found = []
    for reward, group in zip(rewards, groups):
        members = [r for r, g, kept in zip(rewards, groups, baseline) if g == group and kept]
        mean = statistics.fmean(members) if len(members) > 1 else 0.0
        deviation = statistics.stdev(members) if len(members) > 1 else 1.0
        if unit_when_constant and deviation == 0:
            deviation = 1.0
        found.append((reward - mean) / (deviation + epsilon) if std else reward - mean)
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("unit", [True, False])
def test_advantages_are_those_of_a_loop_over_groups(seed, unit):
    rng = random.Random(seed)
    groups = [rng.randrange(5) for _ in range(24)]
    rewards = [rng.choice([0.0, 1.0, rng.random()]) for _ in groups]
    baseline = [rng.random() < 0.8 for _ in groups]
    tensors = torch.tensor(rewards), torch.tensor(groups), torch.tensor(baseline)
    wanted = slow(torch.tensor(rewards).tolist(), groups, baseline, std=False)
    assert centred(*tensors).tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-7)
    wanted = slow(torch.tensor(rewards).tolist(), groups, baseline, std=True, unit_when_constant=unit)
    assert standardised(*tensors, unit_when_constant=unit).tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_a_right_teacher_row_beside_rollouts_that_all_fail_has_signal():
    rewards = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    group = torch.zeros(8, dtype=torch.long)
    advantage = centred(rewards, group, torch.ones(8, dtype=torch.bool))
    assert advantage.tolist() == [7 / 8] + [-1 / 8] * 7
    assert groups_with_signal(advantage, group).tolist() == [True]


def test_a_group_of_one_reward_has_no_signal():
    group = torch.tensor([0, 0, 1, 1])
    advantage = centred(torch.tensor([1.0, 1.0, 0.0, 1.0]), group, torch.ones(4, dtype=torch.bool))
    assert groups_with_signal(advantage, group).tolist() == [False, True]


def test_equal_rewards_that_are_no_binary_fraction_have_advantage_zero():
    rewards, group = torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long)
    assert standardised(rewards, group, torch.ones(7, dtype=torch.bool)).tolist() == [0.0] * 7
