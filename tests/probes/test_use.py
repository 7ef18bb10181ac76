"""Probes that are kept: saved and read back, applied, erased, steered, and as scores whose values are known."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from probes.protocol.features import find_feature
from probes.protocol.settings import ProtocolSettings
from probes.states.extract import Reading, States, extract_states
from probes.states.positions import load_tokenizer, tokenise
from probes.svm.kernels import StatesError
from probes.use.interchange import interchange, whole_state
from probes.use.interventions import Edit, answer_greedily, editing, end_scorer, leace, random_steer, steer
from probes.use.saved_probe import SavedProbe, apply_probe, fit_probe, load_probe, save_probe
from probes.use.scores import ProbeReward, best_of_n, early_correctness, weighted_vote
from tests.probes.test_states import save_model
from tracekit.cli.probe_use import command_probe_apply, command_probe_early, command_probe_erase, command_probe_fit
from tracekit.core.models import open_model
from tracekit.study.tasks.world import World, label_steps, make_problems, teach
from tracekit.viewer.build import build_view

WORLD = World()
SETTINGS = ProtocolSettings(permutations=19, draws=20, repeats=1, outer_folds=3, inner_folds=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("use")
    save_model(folder / "model")
    problems = make_problems(WORLD, "train", 40, seed=2)
    written = teach(WORLD, problems, seed=2)
    label_steps(problems, written, WORLD).write_parquet(folder / "steps.parquet")
    joined = written.join(problems, on="problem_id")
    joined.with_columns(correct=pl.int_range(pl.len()) % 2 == 0).write_parquet(folder / "traces.parquet")
    problems.write_parquet(folder / "problems.parquet")
    return folder


@pytest.fixture(scope="module")
def read(files: Path) -> tuple[States, pl.DataFrame, pl.DataFrame]:
    traces, steps = (pl.read_parquet(files / f"{name}.parquet") for name in ("traces", "steps"))
    reading = Reading(positions=("step_end", "every_token"))
    return extract_states(files / "model", traces, steps, files / "states", reading), traces, steps


@pytest.fixture(scope="module")
def probe(read) -> SavedProbe:
    states, traces, steps = read
    return fit_probe(states, traces, steps, find_feature("value_parity", traces, steps), SETTINGS)


def test_the_token_that_is_the_value_gives_its_parity(probe):
    assert probe.position == "step_end"
    assert probe.auc > 0.9
    assert 0.3 < probe.bits <= 1


def test_a_probe_comes_back_from_disk_and_scores_alike(probe, read, tmp_path):
    save_probe(probe, tmp_path)
    again, (states, _, _) = load_probe(tmp_path), read
    assert sorted(p.name for p in tmp_path.iterdir()) == ["probe.json", "probe.safetensors"]
    assert apply_probe(again, states)["margin"].equals(apply_probe(probe, states)["margin"])
    assert (again.classes, again.layer, again.model) == (probe.classes, probe.layer, states.model)


def test_the_margin_is_the_direction_times_the_scaled_state(probe, read):
    states, _, _ = read
    x = states.read(probe.layer, np.arange(6)).astype(float)
    expected = [probe.direction @ ((row - probe.mean) / probe.spread) + probe.bias for row in x]
    np.testing.assert_allclose(probe.margin(x), expected)
    step = x[0] + probe.raw_direction
    others = np.random.default_rng(0).standard_normal((20, len(step)))
    others = x[0] + others / np.linalg.norm(others, axis=1, keepdims=True)
    assert probe.margin(step[None])[0] > probe.margin(others).max()


def test_states_of_another_model_are_refused(probe, read):
    other = SavedProbe(**{**vars(probe), "model": "another"})
    with pytest.raises(StatesError, match="fitted on model another"):
        apply_probe(other, read[0])
    assert len(apply_probe(other, read[0], any_model=True))


def test_layer_is_chosen_among_those_named(read):
    states, traces, steps = read
    one = fit_probe(states, traces, steps, find_feature("value_parity", traces, steps), SETTINGS, layers=(2,))
    assert one.layer == 2


# ---------------------------------------------------------------- erase and steer


def test_after_an_erasure_no_linear_fit_tells_the_label_and_the_rest_stays():
    random = np.random.default_rng(0)
    y = random.choice((-1.0, 1.0), 400)
    x = random.standard_normal((400, 8)) @ random.standard_normal((8, 8)) + 3
    x += np.outer(y, random.standard_normal(8))
    edit = leace(x, y)
    erased = edit(x)
    assert edit.left.shape[1] == 1
    np.testing.assert_allclose(erased[y > 0].mean(0), erased[y < 0].mean(0), atol=1e-9)  # class means agree
    assert np.linalg.matrix_rank(erased - x, tol=1e-9) == 1
    np.testing.assert_allclose(edit(erased), erased, atol=1e-9)  # nothing is left to erase
    np.testing.assert_allclose(erased.mean(0), x.mean(0), atol=1e-9)


def test_no_other_erasure_moves_the_states_less():
    """LEACE is optimal in the whitened norm: taking out w by a plain projection moves them at least as far."""
    random = np.random.default_rng(1)
    y = random.choice((-1.0, 1.0), 500)
    x = random.standard_normal((500, 6)) * np.array([1, 2, 3, 4, 5, 6]) + np.outer(y, np.ones(6))
    moved = ((leace(x, y)(x) - x) ** 2).sum()
    gap = x[y > 0].mean(0) - x[y < 0].mean(0)
    plain = np.outer((x - x.mean(0)) @ gap, gap) / (gap @ gap)
    assert moved < (plain**2).sum()


def test_the_edit_is_applied_where_it_is_asked_and_gone_afterwards(files, read, probe):
    model = transformers.AutoModelForCausalLM.from_pretrained(files / "model").eval()
    ids = torch.tensor([tokenise(load_tokenizer(files / "model"), read[1])[0].token_ids])
    push = random_steer(32, 2.0, seed=0)
    seen: list[torch.Tensor] = []
    model.model.layers[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        before = model(ids).logits
        with editing(model, 2, push):
            inside = model(ids).logits
        after = model(ids).logits
    np.testing.assert_allclose(seen[1], seen[0] + torch.tensor(push.shift), atol=1e-5)
    assert not torch.equal(inside, before)
    assert torch.equal(after, before)
    with torch.no_grad(), editing(model, 0, push):
        assert not torch.equal(model(ids).logits, before)


def test_steering_moves_the_margin_one_way_and_the_control_has_its_length(probe, read):
    x = read[0].read(probe.layer, np.arange(30)).astype(float)
    up, control = steer(probe, 2.0, 0.5), random_steer(x.shape[1], 1.0, seed=3)
    assert (probe.margin(up(x)) > probe.margin(x)).all()
    assert np.linalg.norm(up.shift) == pytest.approx(np.linalg.norm(control.shift)) == pytest.approx(1.0)


def test_greedy_answers_are_those_of_one_prompt_at_a_time(files, read):
    model = transformers.AutoModelForCausalLM.from_pretrained(files / "model").eval()
    tokenizer = load_tokenizer(files / "model")
    prompts = [s.token_ids[: s.prompt_length] for s in tokenise(tokenizer, read[1])[:5]]
    together = answer_greedily(model, tokenizer, prompts, new_tokens=8)
    assert together == [answer_greedily(model, tokenizer, [p], new_tokens=8)[0] for p in prompts]
    none = Edit("none", *(np.zeros((32, 0)),) * 2, *(np.zeros(32),) * 2)
    with editing(model, 1, none):
        assert answer_greedily(model, tokenizer, prompts, new_tokens=8) == together


# ---------------------------------------------------------------- scores


SAMPLES = pl.DataFrame(
    {
        "problem_id": ["p", "p", "p", "q", "q", "q"],
        "answer": ["1", "1", "2", "3", "4", None],
        "correct": [False, False, True, True, False, False],
        "margin": [0.1, 0.2, 0.9, 0.3, 0.2, 0.8],
    }
)


def test_best_of_n_and_votes_by_hand():
    assert best_of_n(SAMPLES, "margin").accuracy == 0.5  # p by 0.9 right, q by 0.8 wrong
    assert weighted_vote(SAMPLES).accuracy == 0.5  # p: two for 1; q: a tie, the first stands
    assert weighted_vote(SAMPLES, "margin").accuracy == 1.0  # p: 0.9 against 0.3


def test_a_problem_without_an_answer_is_not_solved():
    silent = pl.DataFrame({"problem_id": ["r"], "answer": [None], "correct": [True], "margin": [1.0]})
    assert weighted_vote(pl.concat([SAMPLES, silent.cast(SAMPLES.schema)]), "margin").accuracy == pytest.approx(2 / 3)


def test_early_correctness_reads_no_further_than_the_share():
    rows = [(f"p{t}", f"t{t}", s / 10, float(t % 2) if s > 5 else 0.0) for t in range(20) for s in range(1, 11)]
    tokens = pl.DataFrame(rows, schema=["problem_id", "trace_id", "share", "score"], orient="row")
    table = early_correctness(tokens, {f"t{t}": t % 2 == 1 for t in range(20)}, ["score"], (0.5, 0.6))
    assert table["auc"].to_list() == [0.5, 1.0]
    assert table["low"].to_list() == [0.5, 1.0]


def test_the_reward_has_trls_shape_and_is_the_probes_probability(files, read, probe):
    model = transformers.AutoModelForCausalLM.from_pretrained(files / "model").eval()
    tokenizer = load_tokenizer(files / "model")
    reward = ProbeReward(end_scorer(model, tokenizer, probe), "parity")
    s = tokenise(tokenizer, read[1])[0]
    prompt = tokenizer.decode(s.token_ids[: s.prompt_length])
    completion = read[1]["response"][0]
    found = reward(prompts=[prompt], completions=[completion], gold=["x"])
    chat = reward(prompts=[prompt], completions=[[{"role": "assistant", "content": completion}]])
    assert reward.__name__ == "parity"
    assert found == chat
    assert 0 < found[0] < 1
    with pytest.raises(ValueError, match="1 prompts for 2 completions"):
        reward([prompt], [completion] * 2)


# ---------------------------------------------------------------- the commands


def test_one_model_is_enough_for_fit_apply_early_and_erase(files, tmp_path, capsys):
    model, kept = files / "model", tmp_path / "kept"
    quick = ("permutations=19", "draws=20", "repeats=1", "outer_folds=3", "inner_folds=2")
    command_probe_fit(*quick, model=model, traces=files, feature="value_parity", output=kept)  # a folder: steps beside
    assert load_probe(kept).feature == "value_parity"
    command_probe_apply(kept, model=model, traces=files / "traces.parquet", output=tmp_path / "apply")
    scores = pl.read_parquet(tmp_path / "apply" / "scores.parquet")
    assert scores["probability"].is_between(0, 1).all()
    assert "most wrong" in capsys.readouterr().out
    command_probe_early(kept, model=model, traces=files / "traces.parquet", output=tmp_path / "early")
    early = pl.read_parquet(tmp_path / "early" / "early.parquet")
    assert set(early["score"]) == {"margin", "mean_margin", "log_prob"}
    assert early.filter(share=1.0)["traces"].to_list() == [40, 40, 40]
    command_probe_erase(kept, model=model, problems=files / "problems.parquet", new_tokens=6, output=tmp_path / "erase")
    answers = pl.read_parquet(tmp_path / "erase" / "answers.parquet")
    assert answers.columns == ["problem", "gold", "unchanged", "erased", "random direction erased"]


# ---------------------------------------------------------------- interchange


def pair_of_inputs(words: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    draw = np.random.default_rng(3)
    return draw.integers(3, words, (5, 9)), draw.integers(3, words, (5, 9)), [2, 4, 8, 3, 6]


def logits_at(model, ids, at):
    with torch.inference_mode():
        return model(input_ids=torch.as_tensor(ids)).logits[torch.arange(len(ids)), torch.as_tensor(at)].numpy()


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_the_whole_last_state_makes_the_model_go_on_as_the_source(tmp_path, kind):
    model = open_model(save_model(tmp_path, kind)).eval()
    base, source, at = pair_of_inputs(model.config.vocab_size)
    width = model.config.hidden_size
    swapped = interchange(model, 3, whole_state(width), base, source, at)
    np.testing.assert_allclose(swapped, logits_at(model, source, at), atol=1e-4)


def test_an_empty_part_changes_nothing_and_the_embedding_is_the_token(tmp_path):
    model = open_model(save_model(tmp_path)).eval()
    base, source, at = pair_of_inputs(model.config.vocab_size)
    nothing = Edit("nothing", *(np.zeros((32, 0)),) * 2, *(np.zeros(32),) * 2)
    np.testing.assert_allclose(interchange(model, 1, nothing, base, source, at), logits_at(model, base, at), atol=1e-5)
    mixed = base.copy()
    mixed[range(5), at] = source[range(5), at]
    swapped = interchange(model, 0, whole_state(32), base, source, at)
    np.testing.assert_allclose(swapped, logits_at(model, mixed, at), atol=1e-4)


def test_the_viewer_colours_the_tokens_of_an_applied_probe(files, tmp_path, capsys):
    model, traces = files / "model", files / "traces.parquet"
    steps = files / "steps.parquet"
    kept, applied = tmp_path / "fit", tmp_path / "apply"
    command_probe_fit("outer_folds=3", model=model, traces=traces, steps=steps, feature="value_parity", output=kept)
    command_probe_apply(kept, model=model, traces=traces, steps=steps, position="every_token", output=applied)
    page = build_view(applied)
    shards = "".join(path.read_text("utf-8") for path in sorted((page.parent / "data").glob("traces-*.js")))
    scores = pl.read_parquet(applied / "scores.parquet").filter(pl.col("character") > 0)
    first = pl.read_parquet(applied / "traces.parquet").row(0, named=True)
    own = scores.filter(trace_id=first["trace_id"]).sort("character")
    flat = [v for end, p in own.select("character", "probability").iter_rows() for v in (end, round(1000 * p))]
    assert json.dumps(flat, separators=(",", ":")) in shards.replace(" ", "")
    assert own["character"].to_list() == [m.end() for m in re.finditer(r"\S+", first["response"])]
