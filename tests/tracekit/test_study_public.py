"""A study of a hub's model and public data: planned, checked, run in small from a folder, told and published."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch
from public_data import write_recipe
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tracekit.core.runs import no_progress
from tracekit.core.settings import SettingsError, build_settings, load_settings
from tracekit.core.tables import COMPLETIONS, CURATED, PROBLEMS, read_table
from tracekit.study.pipeline import jobs_of
from tracekit.study.plan import plan_study
from tracekit.study.run import check_study
from tracekit.study.settings import GivenBase, StudySettings
from tracekit.study.steps.exploration import RANK_BINS, measure_teacher_tokens
from tracekit.study.steps.training import LaunchError, as_toml, launch_run, train_settings
from tracekit.study.tasks.public import PublicStudy, StudyDataError, lay_base
from tracekit.text.contamination import contaminated
from trainer.data.sequences import encode_curated
from trainer.settings import DataSettings, TrainSettings

ROOT = Path(__file__).resolve().parents[2]
HUB_STUDIES = ("qwen7b", "qwen1.5b")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("public"))


def run(recipe: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracekit.cli", "study", str(recipe), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    done = run(recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    return recipe.parent / "run"


# ---------------------------------------------------------------- the whole of it, small


def test_a_study_from_a_given_base_ends_with_its_report(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
    assert [gate["name"] for gate in result["gates"]] == ["a guess scores nothing"]
    assert set(result["arms"]) == {"base", "sft", "luffy"}
    assert set(result["arms"]["sft"]) == {"asked", "far away"}
    assert {"greedy", "pass@1", "pass@3", "majority@3"} <= set(result["arms"]["sft"]["asked"])
    assert set(result["arms"]["sft"]["far away"]) == {"greedy", "pass@1"}  # one sample: no vote
    assert result["arms"]["sft"]["asked"]["greedy"]["seeds"] == 2
    assert result["arms"]["base"]["asked"]["greedy"]["seeds"] == 1
    assert {effect["feature"] for effect in result["probes"]} == {"step_kind", "value_parity"}
    page = (finished / "report.html").read_text(encoding="utf-8")
    for told in ("imitation has no gate", "The teacher cannot be asked again", "temperature 0.6", "far away"):
        assert told in page
    for absent in ("the world's", "forced-step", "temperature 1<", "off_teacher"):
        assert absent not in page


def test_claims_that_public_data_cannot_carry_are_left_out(finished: Path) -> None:
    claims = pl.read_parquet(finished / "figures" / "claims.parquet")
    assert not claims["claim"].str.contains("teacher's ways").any()
    assert claims["claim"].str.contains("at temperature 0.6").any()
    assert set(claims.filter(pl.col("estimand").str.ends_with(": base"))["verdict"]) == {"inconclusive"}


def test_the_base_stands_once_for_all_seeds_and_is_asked_as_it_was_changed(finished: Path) -> None:
    assert {path.name for path in (finished / "models").iterdir()} == {"base-0", "sft-0", "sft-1", "luffy-0"}
    for name in ("base-0", "sft-1", "luffy-0"):
        folder = finished / "models" / name / "final"
        config = AutoConfig.from_pretrained(folder)
        assert config.rope_parameters["rope_theta"] == 40_000
        assert config.max_position_embeddings == 512
        assert "<think>" in AutoTokenizer.from_pretrained(folder).chat_template
    asked = read_table(finished / "measures" / "base-0" / "asked" / "completions.parquet", COMPLETIONS)
    assert len(asked) == 6 * (1 + 3)
    assert asked["temperature"].unique().sort().to_list() == pytest.approx([0.0, 0.6])


def test_nobody_trains_on_what_is_probed(finished: Path) -> None:
    train, probe = (read_table(finished / "data" / part / "problems.parquet", PROBLEMS) for part in ("train", "probe"))
    assert len(probe) == 18
    assert not set(train["problem_id"]) & set(probe["problem_id"])
    assert contaminated(train["problem"], probe["problem"]).is_empty()
    curated = read_table(finished / "curation" / "train.parquet", CURATED)
    assert set(curated["problem_id"]) == set(train["problem_id"])


def test_the_same_command_on_a_finished_study_repeats_nothing(recipe: Path, finished: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (finished / "jobs").glob("*.done")}
    assert run(recipe).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in (finished / "jobs").glob("*.done")} == before


# ---------------------------------------------------------------- the base


def test_weights_of_a_base_are_linked_and_its_own_folder_stays_as_it_was(recipe: Path, tmp_path: Path) -> None:
    model = recipe.parent / "model"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    given = load_settings(StudySettings, recipe).given_base
    lay_base(given, tmp_path / "final")
    assert (tmp_path / "final" / "model.safetensors").samefile(model / "model.safetensors")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final").state_dict()
    for name, weight in load_file(model / "model.safetensors").items():
        assert torch.equal(loaded[name], weight)


def test_base_and_arms_are_read_in_one_dtype(recipe: Path, finished: Path, tmp_path: Path) -> None:
    """A base of the hub is bfloat16, a trained checkpoint float32: rounding alone would tell the two apart."""
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(recipe.parent / "model", dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(recipe.parent / "model").save_pretrained(half)
    lay_base(GivenBase(model=str(half)), tmp_path / "final")
    for folder in (tmp_path / "final", finished / "models" / "sft-0" / "final"):
        assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.float32
    assert load_file(tmp_path / "final" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


def test_pickled_weights_are_no_base(recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(recipe.parent / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        lay_base(GivenBase(model=str(tmp_path / "model")), tmp_path / "final")


# ---------------------------------------------------------------- what is measured on real text


def test_a_path_of_real_text_is_how_it_is_built() -> None:
    path_of = PublicStudy(StudySettings()).path_of
    text = "We know it.\n\nFirst 3 + 4 = 7.\n\nThen 7 + 1 = 8.\n\nWait, 8 * 2 = 16.\n\nSo \\boxed{16}"
    kinds = [kind for kind, _ in path_of("", text)]
    assert kinds == ["calculation", "backtracking", "conclusion"]  # two sums run together, nothing is restated
    other = "First 30 + 4 = 34.\n\nWait, 9 * 2 = 18.\n\nSo \\boxed{18}"
    assert path_of("", other) == path_of("", text)


def test_teacher_tokens_are_ranked_and_weighed_as_a_plain_pass_does(finished: Path, tmp_path: Path) -> None:
    base, own = (finished / "models" / name / "final" for name in ("base-0", "sft-0"))
    curated, limits = PublicStudy(load_settings(StudySettings, finished.parent / "study.toml")).taught()
    assert len(curated) == 8
    found = measure_teacher_tokens(own, base, curated, limits, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(own)
    networks = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (base, own)]
    ranks, values = [], []
    for row in encode_curated(curated, tokenizer, limits).rows:
        with torch.no_grad():
            mine, its = (network(torch.tensor([list(row.token_ids)])).logits[0].log_softmax(-1) for network in networks)
        for at in range(row.prompt_length, len(row.token_ids)):
            ranks.append(int((mine[at - 1] > mine[at - 1, row.token_ids[at]]).sum()) + 1)
            values.append(float(its[at - 1, row.token_ids[at]]))
    for low, high, tokens, log_prob in found.select("rank_low", "rank_high", "tokens", "log_prob").iter_rows():
        inside = [value for rank, value in zip(ranks, values) if low <= rank < high]
        assert tokens == pytest.approx(len(inside), abs=2)  # equal logits may change places
        if tokens:
            assert log_prob == pytest.approx(sum(inside) / len(inside), abs=0.02)
    assert found["tokens"].sum() == len(ranks)
    assert RANK_BINS[-1] > len(tokenizer)


# ---------------------------------------------------------------- plans and launches


@pytest.fixture(params=HUB_STUDIES)
def named(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A hub study's recipe, and a folder with the configuration of its base."""
    width, heads, keys, inner = (3584, 28, 4, 18_944) if request.param == "qwen7b" else (1536, 12, 2, 8960)
    config = {
        "model_type": "qwen2", "vocab_size": 152_064, "hidden_size": width, "num_hidden_layers": 28,
        "num_attention_heads": heads, "num_key_value_heads": keys, "intermediate_size": inner,
        "max_position_embeddings": 4096, "rope_theta": 10_000.0, "tie_word_embeddings": width < 2000,
    }  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ROOT / "studies" / f"{request.param}.toml", tmp_path / "model"


def test_a_hub_study_is_planned_from_a_configuration_alone(named: tuple[Path, Path]) -> None:
    recipe, model = named
    settings = load_settings(StudySettings, recipe, [f"base.model={model}"])
    plan = plan_study(settings, ["work.response_tokens=3000"])
    found = {one.arm: one for one in plan.arms}
    assert set(found) == {"sft", "grpo", "luffy", "luffy_plain", "rl_sft", "sft_grpo"}
    assert [found[arm].runs for arm in ("luffy", "luffy_plain")] == [3, 1]
    assert found["rl_sft"].hours > found["luffy"].hours > found["sft"].hours > 0
    assert all(one.estimate.peak < plan.hardware.memory for one in plan.arms)
    assert found["sft"].estimate.parameters // 10**8 == (76 if recipe.stem == "qwen7b" else 15)
    longer = plan_study(settings, ["work.response_tokens=6000", "hardware.devices=4"], "a100")
    assert {one.arm: one.hours for one in longer.arms}["luffy"] > 2 * found["luffy"].hours


def test_the_command_plans_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tracekit.cli", "study", str(ROOT / "studies" / "luffy.toml"), "--dry-run"]
    told = subprocess.run(
        [*command, f"output={tmp_path / 'run'}", "work.response_tokens=30"],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "response tokens 30," in told.stdout
    assert "sft_exposure" in told.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", HUB_STUDIES)
def test_every_arm_of_a_hub_study_trains_from_the_one_changed_base(name: str) -> None:
    settings = load_settings(StudySettings, ROOT / "studies" / f"{name}.toml")
    assert settings.given_base.model_changes.rope_theta == 40_000
    assert settings.splits[:3] == ("AIME 2024", "AIME 2025", "AMC")
    assert settings.repeated == ("AIME 2024", "AIME 2025", "AMC")
    assert [settings.samples_of(split) for split in settings.splits] == [32, 32, 32, 1, 1, 1, 1, 1, 1]
    for arm, seed in settings.runs()[1:]:
        resolved = train_settings(settings, arm, seed)
        start = settings.arms[arm].start
        assert resolved.model == str(settings.output / "models" / settings.run_name(start, seed) / "final")
        assert resolved.threads is None
        assert resolved.parallel.fsdp
    assert len([job for job in jobs_of(settings) if job.name.startswith("evaluate-base")]) == 1


def test_the_embedded_world_is_planned_on_one_core() -> None:
    plan = plan_study(load_settings(StudySettings, ROOT / "studies" / "luffy.toml", ["seeds=[0, 1]"]))
    hours = {one.arm: one.hours for one in plan.arms}
    assert hours["base"] > hours["sft"] > 0
    assert hours["luffy"] < 0.1
    assert {one.runs for one in plan.arms} == {2}
    assert plan.hardware.devices == 1


def test_settings_of_a_run_survive_the_way_to_a_process_of_its_own(tmp_path: Path) -> None:
    settings = load_settings(StudySettings, ROOT / "studies" / "qwen7b.toml")
    resolved = train_settings(settings, "luffy_plain", 0)
    (tmp_path / "run.toml").write_text(as_toml(resolved.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    assert load_settings(TrainSettings, tmp_path / "run.toml") == resolved


def test_a_run_is_started_by_a_launcher_and_its_fault_is_told(finished: Path, recipe: Path, tmp_path: Path) -> None:
    settings = load_settings(StudySettings, recipe)
    resolved = train_settings(settings, "sft", 0)
    again = resolved.model_copy(update={"output": tmp_path / "sft"})
    launch_run((sys.executable,), again, tmp_path / "train-sft-0")
    same, first = (load_file(folder / "final" / "model.safetensors") for folder in (tmp_path / "sft", resolved.output))
    assert all(torch.equal(same[name], first[name]) for name in first)
    broken = again.model_copy(update={"model": str(tmp_path / "nothing"), "output": tmp_path / "broken"})
    with pytest.raises(LaunchError, match=r"train-broken\.log"):
        launch_run((sys.executable,), broken, tmp_path / "train-broken")
    with pytest.raises(LaunchError, match="no program"):
        launch_run(("no-such-launcher",), again, tmp_path / "train-none")


# ---------------------------------------------------------------- faults of the user


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("base.model=/no/such/model", "no folder stands there"),
        ("base={}", "base: model"),
        ("data.shifted=['elsewhere']", "shifted names elsewhere; the sets are asked, far away"),
        ("data.sets=[{path='nowhere.jsonl', samples=3}]", "nowhere.jsonl does not exist"),
        ("data.sets='no-such-recipe'", "no-such-recipe does not exist"),
        ("data.curation={sources=['nowhere.jsonl']}", "nowhere.jsonl does not exist"),
        ("data.asking={enginee='vllm'}", "did you mean engine"),
        ("data.reading={layer=[1]}", "unknown key layer"),
        ("evaluation.max_tokens=4096", "window"),
        ("recipe.model=elsewhere", "say it in [base]"),
        ("arms.sft.recipe.data={system_prompt='x'}", "the prompt is the base's"),
        ("probing.protocol={permutations=19}", "name in band"),
        ("arms.sft.recipe.stepz=3", "did you mean steps"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_begun(recipe: Path, tmp_path: Path, word: str, said: str) -> None:
    words = [f"output={tmp_path / 'run'}", *(["data.shifted=[]"] if word.startswith("data.sets") else []), word]
    with pytest.raises(ValueError, match=r".") as fault:
        check_study(load_settings(StudySettings, recipe, words))
    assert said in str(fault.value)
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "run").exists()


def test_a_set_that_lacks_the_kind_is_told(recipe: Path) -> None:
    words = ["data.shifted=[]", "data.sets=[{path='asked.jsonl', kind='aime'}]"]
    with pytest.raises(SettingsError, match="no problem of kind aime"):
        check_study(load_settings(StudySettings, recipe, words))


def test_data_without_a_right_trace_is_told(recipe: Path, finished: Path, tmp_path: Path) -> None:
    rows = read_table(finished / "curation" / "train.parquet", CURATED).with_columns(correct=pl.lit(False))
    rows.write_parquet(tmp_path / "wrong.parquet")
    tree = load_settings(StudySettings, recipe).model_dump(mode="json")
    tree["data"] |= {"curation": None, "curated": str(tmp_path / "wrong.parquet")}
    with pytest.raises(StudyDataError, match="no right trace"):
        check_study(build_settings(StudySettings, tree, "test"))


def test_more_held_out_than_there_is_leaves_nothing_to_train_on(recipe: Path, tmp_path: Path) -> None:
    settings = load_settings(StudySettings, recipe, [f"output={tmp_path}", "data.held_out=48"])
    with pytest.raises(StudyDataError, match=r"lower data\.held_out"):
        PublicStudy(settings).curate(no_progress)


def test_a_table_that_was_curated_before_is_taken_as_it_stands(recipe: Path, finished: Path, tmp_path: Path) -> None:
    tree = load_settings(StudySettings, recipe).model_dump(mode="json")
    tree["data"] |= {"curation": None, "curated": str(finished / "curation" / "curated.parquet"), "problems": 5}
    settings = build_settings(StudySettings, tree | {"output": str(tmp_path)}, "test")
    PublicStudy(settings).curate(no_progress)
    assert len(read_table(tmp_path / "data" / "train" / "problems.parquet", PROBLEMS)) == 5
    assert (tmp_path / "data" / "probe" / "traces.parquet").read_bytes() == (
        finished / "data" / "probe" / "traces.parquet"
    ).read_bytes()
    assert PublicStudy(settings).taught()[1] == DataSettings(prompt_tokens=200, response_tokens=160)


# ---------------------------------------------------------------- arms that are evaluated and not trained


def test_a_published_checkpoint_is_an_arm_that_is_evaluated_alone(recipe: Path, finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    given = finished / "models" / "sft-1" / "final"
    words = [f"output={folder}", f"arms.published={{ model = '{given}', title = 'published' }}"]
    settings = load_settings(StudySettings, recipe, words)
    assert settings.run_seeds("published") == settings.seeds[:1]
    assert "published" not in {one.arm for one in plan_study(settings).arms}
    done = run(recipe, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["arms"]["published"]["asked"]["greedy"]["seeds"] == 1
    costs = pl.read_parquet(folder / "figures" / "costs.parquet").filter(pl.col("arm") == "published")
    assert costs["flops"].to_list() == [0.0]


def test_an_arm_is_trained_or_given(recipe: Path) -> None:
    with pytest.raises(SettingsError, match="one of them"):
        load_settings(StudySettings, recipe, ["arms.published={ model = 'x', recipe = { method = 'sft' } }"])
    with pytest.raises(SettingsError, match="every arm is trained"):
        load_settings(StudySettings, ROOT / "studies" / "luffy.toml", ["arms.published={ model = 'x' }"])
