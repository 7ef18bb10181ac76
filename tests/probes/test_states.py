"""Hidden states against transformers' own `output_hidden_states=True`, one trace at a time."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from probes.states.extract import Reading, StatesError, extract_states, open_states
from probes.states.positions import load_tokenizer, tokenise
from tracekit.study.tasks.world import World, label_steps, make_problems, teach, vocabulary, write_tokenizer

WORLD = World()


def save_model(folder: Path, kind: str = "qwen2", seed: int = 0, layers: int = 3) -> Path:
    torch.manual_seed(seed)
    words = len(vocabulary(WORLD))
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=words, n_embd=32, n_layer=layers, n_head=2, n_positions=128)
    else:
        config = transformers.Qwen2Config(
            vocab_size=words,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(WORLD, folder)
    return folder


@pytest.fixture(scope="module")
def corpus() -> tuple[pl.DataFrame, pl.DataFrame]:
    problems = make_problems(WORLD, "train", 12, seed=1)
    traces = teach(WORLD, problems, seed=1)
    return traces.join(problems.select("problem_id", "problem"), on="problem_id"), label_steps(problems, traces, WORLD)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def reference(checkpoint: Path, traces: pl.DataFrame) -> dict[str, list[torch.Tensor]]:
    """trace_id → the input of every block and the output of the last, one unpadded trace at a time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    last: list[torch.Tensor] = []
    blocks = model.base_model.h if hasattr(model.base_model, "h") else model.base_model.layers
    blocks[-1].register_forward_hook(lambda _, __, out: last.append(out[0] if isinstance(out, tuple) else out))
    states = {}
    for s in tokenise(load_tokenizer(checkpoint), traces):
        with torch.no_grad():
            hidden = model(torch.tensor([s.token_ids]), output_hidden_states=True).hidden_states
        states[s.trace_id] = [h[0] for h in hidden[:-1]] + [last.pop()[0], hidden[-1][0]]
    return states


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_states_are_those_of_the_usual_loop(tmp_path, corpus, kind):
    traces, steps = corpus
    model = save_model(tmp_path / "model", kind)
    found = extract_states(model, traces, steps, tmp_path / "states", Reading(token_budget=150))
    wanted = reference(model, traces)
    spans = {s.trace_id: s for s in tokenise(load_tokenizer(model), traces)}
    step_spans = {(r["trace_id"], r["step"]): (r["start"], r["end"]) for r in steps.iter_rows(named=True)}
    assert found.layers == (0, 1, 2, 3)
    for row in found.index.iter_rows(named=True):
        hidden = wanted[row["trace_id"]]
        for layer in found.layers:
            expected = hidden[layer][row["token"]]
            if row["position"] == "step_mean":
                start, end = step_spans[row["trace_id"], row["step"]]
                s = spans[row["trace_id"]]
                inside = [s.prompt_length + t for t, (a, b) in enumerate(s.spans) if a >= start and b <= end]
                expected = hidden[layer][inside].mean(0)
            np.testing.assert_allclose(found.layer(layer)[row["row"]], expected, atol=1e-5)


def test_the_last_layer_is_taken_before_the_final_norm(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    found = extract_states(checkpoint, traces, steps, tmp_path, Reading(positions=("prompt_end",), layers=(-1,)))
    wanted = reference(checkpoint, traces)
    row = found.index.row(0, named=True)
    before, after = (wanted[row["trace_id"]][k][row["token"]].numpy() for k in (-2, -1))
    np.testing.assert_allclose(found.layer(3)[0], before, atol=1e-5)
    assert np.abs(before - after).max() > 0.1


def test_positions_are_the_tokens_that_their_names_say(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    found = extract_states(checkpoint, traces, steps, tmp_path)
    words = vocabulary(WORLD)
    said = dict(zip(traces["trace_id"], traces["response"]))
    ends = {
        (r["trace_id"], r["step"]): said[r["trace_id"]][: r["end"]].split()[-1] for r in steps.iter_rows(named=True)
    }
    for row in found.index.iter_rows(named=True):
        word = words[row["token_id"]]
        if row["position"] == "prompt_end":
            assert word == "?"
        elif row["position"] == "before_answer":
            assert word == "\\boxed{"
        else:
            assert word == ends[row["trace_id"], row["step"]]


def test_no_layer_deeper_than_the_deepest_asked_for_is_run(tmp_path, corpus, checkpoint, monkeypatch):
    traces, steps = corpus
    ran = []
    block = transformers.models.qwen2.modeling_qwen2.Qwen2DecoderLayer
    forward = block.forward
    monkeypatch.setattr(
        block, "forward", lambda self, *a, **k: ran.append(self.self_attn.layer_idx) or forward(self, *a, **k)
    )
    extract_states(checkpoint, traces, steps, tmp_path, Reading(layers=(0, 1)))
    assert set(ran) == {0}


def test_an_interrupted_extraction_resumes_without_repeating_a_batch(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    reading = Reading(token_budget=150)
    whole = extract_states(checkpoint, traces, steps, tmp_path / "whole", reading)

    class Killed(Exception):
        pass

    def kill_at_third(stage, done, total, note=""):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        extract_states(checkpoint, traces, steps, tmp_path / "resumed", reading, progress=kill_at_third)
    with pytest.raises(StatesError, match="no finished states"):
        open_states(tmp_path / "resumed")
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "resumed" / "parts").glob("*.safetensors")}
    assert len(kept) == 2
    totals = []
    resumed = extract_states(
        checkpoint,
        traces,
        steps,
        tmp_path / "resumed",
        reading,
        progress=lambda s, d, total, n="": totals.append(total),
    )
    assert totals[0] == len(list_batches(whole, traces, checkpoint, steps)) - 2
    for layer in whole.layers:
        np.testing.assert_array_equal(whole.layer(layer), resumed.layer(layer))
    assert whole.index.equals(resumed.index)


def list_batches(states, traces, checkpoint, steps):
    from probes.states.forward import make_batches
    from probes.states.places import place

    sequences = tokenise(load_tokenizer(checkpoint), traces)
    return list(make_batches(sequences, place(sequences, traces, steps, Reading().positions), 150))


def test_bfloat16_is_the_rounded_float32_and_half_the_size(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    full = extract_states(checkpoint, traces, steps, tmp_path / "full")
    half = extract_states(checkpoint, traces, steps, tmp_path / "half", Reading(stored="bfloat16"))
    expected = torch.from_numpy(np.array(full.layer(2))).bfloat16().float().numpy()
    np.testing.assert_array_equal(half.layer(2), expected)
    np.testing.assert_array_equal(half.read(2, np.array([5, 1])), expected[[5, 1]])
    sizes = [(tmp_path / f / "layer_002.npy").stat().st_size - 128 for f in ("full", "half")]
    assert sizes[0] == 2 * sizes[1]


def test_float16_that_overflows_is_refused_with_the_count(tmp_path, corpus):
    traces, steps = corpus
    folder = save_model(tmp_path / "giant")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.model.embed_tokens.weight.data[:, 0] = 1e6  # a giant activation, as trained models have them
    model.save_pretrained(folder)
    with pytest.raises(StatesError, match=r"rows overflow float16.*bfloat16"):
        extract_states(folder, traces, steps, tmp_path / "states", Reading(stored="float16"))


def test_states_that_are_not_finite_are_refused_by_layer(tmp_path, corpus):
    traces, steps = corpus
    folder = save_model(tmp_path / "broken")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[1].mlp.down_proj.weight.data[0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(StatesError, match=r"layer_002: \d+ of \d+ rows are NaN"):
        extract_states(folder, traces, steps, tmp_path / "states")


def test_log_probs_are_the_models_own(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    found = extract_states(checkpoint, traces, steps, tmp_path, Reading(positions=("step_end",), log_probs=True))
    sequences = {s.trace_id: s for s in tokenise(load_tokenizer(checkpoint), traces)}
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    row = found.index.join(
        steps.filter(pl.col("kind") == "calculation", pl.col("step") > 0), on=["trace_id", "step"]
    ).row(0, named=True)
    s = sequences[row["trace_id"]]
    with torch.no_grad():
        log_probs = torch.log_softmax(model(torch.tensor([s.token_ids])).logits[0], -1)
    first = row["token"] - 2  # a calculation is three words
    own = [log_probs[t - 1, s.token_ids[t]].item() for t in range(first, row["token"] + 1)]
    assert row["log_prob"] == pytest.approx(np.mean(own), abs=1e-5)


LOGITS = {  # architectures that change their logits behind the head
    "gemma2": {"final_logit_softcapping": 3.0, "head_dim": 16},
    "cohere2": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 8.0},
    "llama4_text": {
        "intermediate_size_mlp": 64,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "head_dim": 16,
        "interleave_moe_layer_step": 1,
    },
}


@pytest.mark.parametrize("kind", LOGITS)
def test_log_probs_honour_what_a_model_does_to_its_logits(tmp_path, corpus, kind):
    traces, steps = corpus
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(vocabulary(WORLD)), num_key_value_heads=1, pad_token_id=0, **size, **LOGITS[kind]
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight *= 20  # logits of a usual size
    model.save_pretrained(tmp_path / "model")
    write_tokenizer(WORLD, tmp_path / "model")
    reading = Reading(positions=("step_end",), layers=(1,), log_probs=True)
    found = extract_states(tmp_path / "model", traces, steps, tmp_path / "states", reading)
    spans = {(r["trace_id"], r["step"]): (r["start"], r["end"]) for r in steps.iter_rows(named=True)}
    for s in tokenise(load_tokenizer(tmp_path / "model"), traces)[:3]:
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([s.token_ids])).logits[0].float(), -1)
        for row in found.index.filter(trace_id=s.trace_id).iter_rows(named=True):
            start, end = spans[row["trace_id"], row["step"]]
            inside = [s.prompt_length + t for t, (a, b) in enumerate(s.spans) if a >= start and b <= end]
            own = [log_probs[t - 1, s.token_ids[t]].item() for t in inside]
            assert row["log_prob"] == pytest.approx(np.mean(own), abs=2e-4)


@pytest.mark.parametrize(
    ("position", "word"),
    [("before_result", -2), ("step_end-1", -2), ("step_start", 0), ("step_start+1", 1), ("step_end", -1)],
)
def test_a_position_is_an_expression_over_a_steps_tokens(tmp_path, corpus, checkpoint, position, word):
    traces, steps = corpus
    calculations = steps.filter(pl.col("kind") == "calculation")  # three words: letter, operation, result
    found = extract_states(checkpoint, traces, calculations, tmp_path, Reading(positions=(position,), layers=(0,)))
    assert len(found.index) == len(calculations)
    tokenizer, texts = load_tokenizer(checkpoint), dict(traces.select("trace_id", "response").rows())
    spans = {(r["trace_id"], r["step"]): (r["start"], r["end"]) for r in calculations.iter_rows(named=True)}
    for row in found.index.iter_rows(named=True):
        start, end = spans[row["trace_id"], row["step"]]
        assert tokenizer.decode([row["token_id"]]) == texts[row["trace_id"]][start:end].split()[word]


def test_every_token_and_the_means_cover_the_response(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    reading = Reading(positions=("every_token", "response_mean", "prompt_mean"), layers=(1,))
    found = extract_states(checkpoint, traces, steps, tmp_path, reading)
    sequences = tokenise(load_tokenizer(checkpoint), traces)
    every = found.index.filter(position="every_token")
    assert len(every) == sum(len(s.spans) for s in sequences)
    first = traces["trace_id"][0]
    rows = every.filter(trace_id=first)["row"].to_numpy()
    mean = found.index.filter(position="response_mean", trace_id=first)["row"][0]
    np.testing.assert_allclose(found.layer(1)[rows].mean(0), found.layer(1)[mean], atol=1e-5)


@pytest.mark.parametrize("text", ["nowhere", "step_mean+1", "step_end-", "step_end-1.5", "every_token-1"])
def test_a_position_that_is_none_is_named(text):
    from probes.states.places import PositionError, parse_position

    with pytest.raises(PositionError, match="unknown position"):
        parse_position(text)


def test_untrained_weights_differ_and_repeat(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    trained = extract_states(checkpoint, traces, steps, tmp_path / "t", Reading(layers=(2,)))
    first = extract_states(checkpoint, traces, steps, tmp_path / "u", Reading(layers=(2,), untrained=7))
    again = extract_states(checkpoint, traces, steps, tmp_path / "v", Reading(layers=(2,), untrained=7))
    np.testing.assert_array_equal(first.layer(2), again.layer(2))
    assert np.abs(first.layer(2) - trained.layer(2)).max() > 1e-3


def test_a_folder_of_other_states_is_not_overwritten(tmp_path, corpus, checkpoint):
    traces, steps = corpus
    extract_states(checkpoint, traces, steps, tmp_path, Reading(layers=(1,)))
    with pytest.raises(StatesError, match="layers differ"):
        extract_states(checkpoint, traces, steps, tmp_path, Reading(layers=(2,)))
