"""What an update must not do: keep the engine awake, draw dropout, point KL elsewhere, train rows twice."""

import itertools
import math
import sys
import types

import polars as pl
import pytest
import torch
from test_responses import letters
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    OPTConfig,
)

from tracekit.core.tables import CURATED, PROBLEMS
from trainer.data.problems import Problem
from trainer.data.sequences import Row
from trainer.evaluate import EvaluateSettings, evaluate_model
from trainer.loops import policy
from trainer.loops.policy import check_round
from trainer.objectives import losses
from trainer.rollouts.engines import vllm as vllm_engine
from trainer.rollouts.groups import Group, Sample
from trainer.rollouts.rewards import charged_for_kl
from trainer.settings import TrainSettings
from trainer.train import train


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A GPT-2 as it comes: dropout 0.1 everywhere."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = letters((), eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64)
    config.eos_token_id = config.bos_token_id = tokenizer.eos_token_id
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    problems = [{"problem_id": f"p{i}", "problem": f"{i}+1?", "gold": str(i + 1), "source": ""} for i in range(3)]
    frame = [dict.fromkeys(PROBLEMS) | row for row in problems]
    pl.DataFrame(frame, schema=PROBLEMS).write_parquet(folder / "problems.parquet")
    traces = [
        {
            "trace_id": f"{row['problem_id']}{right}",
            "response": f"\\boxed{{{row['gold'] if right else 99}}}",
            "correct": right,
        }
        | row
        for row in problems
        for right in (True, False)
    ]
    frame = [
        dict.fromkeys(CURATED) | {"token_count": 1} | {k: v for k, v in row.items() if k in CURATED} for row in traces
    ]
    pl.DataFrame(frame, schema=CURATED).write_parquet(folder / "curated.parquet")
    return folder


def recipe(method, model, tables, output, **changes):
    data = {"problems": tables / "problems.parquet", "curated": tables / "curated.parquet", "response_tokens": 12}
    tree = {
        "method": method,
        "model": str(model),
        "output": output,
        "data": data,
        "steps": 2,
        "device": "cpu",
        "rollout": {"prompts": 2, "mini_batch_prompts": 1, "group_size": 3},
        "batch": {"rows": 3},
    }
    return TrainSettings.model_validate(tree | changes)


def metrics(final):
    return pl.read_parquet(final.parent / "metrics.parquet")


def test_the_first_dpo_loss_of_a_model_with_dropout_is_ln_2(gpt2, tables, tmp_path):
    assert metrics(train(recipe("dpo", gpt2, tables, tmp_path)))["loss"][0] == pytest.approx(math.log(2), abs=1e-5)


def test_a_policy_with_dropout_has_not_moved_before_its_first_update(gpt2, tables, tmp_path):
    settings = recipe(
        "luffy", gpt2, tables, tmp_path, steps=1, rollout={"prompts": 2, "mini_batch_prompts": 2, "group_size": 3}
    )
    assert metrics(train(settings))["policy_shift"][0] == pytest.approx(0, abs=1e-6)


def test_dropout_of_adapters_is_refused_where_passes_are_compared(gpt2, tables, tmp_path):
    with pytest.raises(ValueError, match="dropout"):
        recipe("dpo", gpt2, tables, tmp_path, lora={"dropout": 0.1})
    assert recipe("sft", gpt2, tables, tmp_path, lora={"dropout": 0.1}).lora.dropout == 0.1


class RecordedVllm:
    """Stands in for vllm.LLM: notes the order of calls, and answers with right and wrong texts in turn."""

    calls: list[str]
    tokenizer = None

    def __init__(self, **options):
        assert options["enable_sleep_mode"]
        self.llm_engine = types.SimpleNamespace(engine_core=types.SimpleNamespace(shutdown=lambda: None))

    def generate(self, prompts, each, use_tqdm):
        self.calls.append("generate")
        outputs = []
        for _ in prompts:
            texts = itertools.cycle(["\\boxed{1}", "\\boxed{2}", "\\boxed{99}"])
            rows = [self.tokenizer(next(texts))["input_ids"][:12] for _ in range(each[0].n)]
            log_prob = types.SimpleNamespace(logprob=-1.0)
            rows = [
                types.SimpleNamespace(
                    index=i, token_ids=ids, logprobs=[{t: log_prob} for t in ids], finish_reason="length"
                )
                for i, ids in enumerate(rows)
            ]
            outputs.append(types.SimpleNamespace(outputs=rows))
        return outputs

    def collective_rpc(self, name, kwargs):
        list(kwargs["weights_iterator"])
        self.calls.append("load")

    def reset_prefix_cache(self):
        self.calls.append("reset")

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags):
        self.calls.append(f"wake {','.join(tags)}")


def test_vllm_sleeps_while_the_model_trains(gpt2, tables, tmp_path, monkeypatch):
    from trainer.modeling.models import load_tokenizer

    calls: list[str] = []
    monkeypatch.setattr(RecordedVllm, "calls", calls, raising=False)
    monkeypatch.setattr(RecordedVllm, "tokenizer", load_tokenizer(gpt2))
    parameters = lambda **options: types.SimpleNamespace(**options)  # noqa: E731
    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(LLM=RecordedVllm, SamplingParams=parameters))
    monkeypatch.setattr(vllm_engine, "has_gpu", lambda: True)
    update = policy.apply_update

    def noted(*arguments):
        calls.append("update")
        return update(*arguments)

    monkeypatch.setattr(policy, "apply_update", noted)
    train(recipe("grpo", gpt2, tables, tmp_path, engine={"kind": "vllm"}))
    one_round = ["generate", "sleep 2", "update", "update", "wake weights", "load", "reset"]
    assert calls == ["load", "reset", *one_round, "wake kv_cache", *one_round]


def test_k2_is_the_kl_whose_gradient_is_the_reverse_kls_and_k3_never_overflows():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(50, generator=generator, dtype=torch.float64).log_softmax(0)
    log_p = logits.log_softmax(0)
    p = log_p.detach().exp()
    (wanted,) = torch.autograd.grad((log_p.exp() * (log_p - reference)).sum(), logits, retain_graph=True)

    def expected(kl):  # over sampled tokens, each weighed by its probability
        return torch.autograd.grad((p * kl(log_p, reference)).sum(), logits, retain_graph=True)[0]

    assert torch.allclose(expected(losses.kl_k2), wanted)
    assert torch.allclose(expected(losses.kl_k1), torch.zeros(50, dtype=torch.float64), atol=1e-12)
    assert torch.cosine_similarity(expected(losses.kl_k3_clamped), wanted, dim=0) < 0.9
    far = torch.tensor([-200.0], requires_grad=True)
    value = losses.kl_k3_clamped(far, torch.tensor([-1.0]))
    value.backward()
    assert value.item() == 10
    assert torch.isfinite(far.grad)


def test_kl_in_the_reward_lowers_the_advantage_of_rows_that_left_the_reference(gpt2, tables, tmp_path):
    settings = recipe("grpo", gpt2, tables, tmp_path, loss={"kl": 0.5, "kl_in": "reward"})
    problem = Problem("p", "?", "1", [1])
    near = Sample([1, 2], 0, "stop", log_probs=[-1.0, -1.0], reward=1.0)
    samples = (near, near, Sample([1, 2], 1, "stop", log_probs=[0.0, -1.0], reward=0.0))
    rows = [
        Row([1, 1, 2], 1, ref_log_probs=[-1.0, -1.0]),
        Row([1, 1, 2], 1, ref_log_probs=[-2.0, -3.0]),  # KL of 3 nats: reward 1 − 0.5 · 3
        Row([1, 1, 2], 1, off_policy=1, ref_log_probs=[-9.0, -2.0]),  # 1 nat on the token that the policy wrote
    ]
    (charged,) = charged_for_kl([Group(problem, samples)], [rows], settings)
    rewards = [1.0, -0.5, -0.5]
    assert [row.advantage for row in charged] == pytest.approx([r - sum(rewards) / 3 for r in rewards])


def test_kl_in_the_reward_trains(gpt2, tables, tmp_path):
    final = train(recipe("luffy", gpt2, tables, tmp_path, loss={"kl": 0.1, "kl_in": "reward"}))
    assert metrics(final)["kl"].is_not_null().all()


def test_a_step_of_more_rows_than_there_are_takes_each_once_and_says_so(gpt2, tables, tmp_path, caplog):
    final = train(recipe("sft", gpt2, tables, tmp_path, batch={"rows": 128}, steps=None))
    assert "batch.rows is 128 and there are 3 examples" in caplog.text
    written = metrics(final)
    curated = pl.read_parquet(tables / "curated.parquet").filter(pl.col("correct"))
    assert written["tokens"].to_list() == [
        sum(len(p) + len(r) + 1 for p, r in zip(curated["problem"], curated["response"]))
    ]


def test_prompts_that_ranks_cannot_share_are_refused_and_a_problem_asked_twice_is_said(
    gpt2, tables, tmp_path, monkeypatch, caplog
):
    settings = recipe("grpo", gpt2, tables, tmp_path, rollout={"prompts": 5, "mini_batch_prompts": 5})
    check_round(settings, problems=5)
    assert not caplog.text
    check_round(settings, problems=3)
    assert "more than once" in caplog.text
    monkeypatch.setattr(policy, "world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"rollout\.prompts is 5, which 2 processes"):
        check_round(settings, problems=5)


@pytest.mark.parametrize("layers", [["conv", "full_attention"], ["full_attention", "full_attention"]])
def test_short_rows_are_packed_only_where_documents_do_not_see_each_other(tables, tmp_path, caplog, layers):
    tokenizer = letters((), eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    config = Lfm2Config(**sizes, num_attention_heads=2, num_key_value_heads=2, layer_types=layers)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    leaks = "conv" in layers
    final = train(recipe("sft", tmp_path / "model", tables, tmp_path / "run", steps=1))
    assert ("documents of a packed row see each other" in caplog.text) == leaks
    curated = pl.read_parquet(tables / "curated.parquet").filter(pl.col("correct"))
    losses_alone = []
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    for problem, response in curated.select("problem", "response").iter_rows():
        ids = torch.tensor([tokenizer(problem + response + "<eos>")["input_ids"]])
        log_probs = model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[len(problem) - 1 :]
        losses_alone.append(-log_probs)
    assert metrics(final)["loss"][0] == pytest.approx(torch.cat(losses_alone).mean().item(), abs=1e-5)


def test_packing_that_the_recipe_asks_for_is_refused_for_a_model_that_mixes_documents(tables, tmp_path):
    tokenizer = letters((), eos_token="<eos>", pad_token="<eos>")
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
        word_embed_proj_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    pl.DataFrame({"text": ["1+1", "2+2"]}).write_parquet(tmp_path / "text.parquet")
    data = {"text": tmp_path / "text.parquet", "pack_tokens": 16}
    with pytest.raises(ValueError, match=r"pack_tokens .* OPTForCausalLM"):
        train(recipe("cpt", tmp_path / "model", tables, tmp_path / "run", data=data))


def test_a_published_data_set_given_to_train_names_curate(gpt2, tables, tmp_path):
    pl.DataFrame({"prompt": ["1+1"], "target": ["2"], "reward_model": ["x"]}).write_parquet(tmp_path / "openr1.parquet")
    data = {"problems": tables / "problems.parquet", "curated": tmp_path / "openr1.parquet"}
    for method in ("sft", "luffy"):
        with pytest.raises(ValueError, match="tracekit curate data="):
            train(recipe(method, gpt2, tables, tmp_path / method, data=data))


@pytest.mark.parametrize("name", ["llama4", "gpt_oss", "bloom"])
def test_models_without_a_usual_attention_or_prefix_train_or_name_the_setting(tables, tmp_path, name):
    tokenizer = letters((), eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = "{{ messages[0].content }}"
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    grouped = {"num_key_value_heads": 1, "intermediate_size": 32, "num_local_experts": 4, "head_dim": 16}
    config = {
        "llama4": lambda: Llama4TextConfig(**sizes, **grouped, intermediate_size_mlp=32),
        "gpt_oss": lambda: GptOssConfig(**sizes, **grouped, num_experts_per_tok=2),
        "bloom": lambda: BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=2),
    }[name]()
    AutoModelForCausalLM.from_config(config, attn_implementation="eager").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    if name != "llama4":
        with pytest.raises(ValueError, match="attention=eager"):
            train(recipe("sft", tmp_path / "model", tables, tmp_path / "refused", steps=1))
    for method in ("sft", "dpo", "luffy"):
        final = train(recipe(method, tmp_path / "model", tables, tmp_path / method, steps=1, attention="eager"))
        assert metrics(final)["gradient_norm"][0] > 0
    settings = EvaluateSettings(temperatures=(0.0,), max_tokens=4, attention="eager")
    problems = pl.read_parquet(tables / "problems.parquet")
    assert len(evaluate_model(final, problems, settings, tmp_path / "evaluation")) == 3
