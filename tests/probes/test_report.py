"""The whole way: states on disk → verdicts → page. Arms are copies of one model's states, so the truth is known."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from probes.protocol.features import FeatureError
from probes.protocol.run import ProbeResult, Source, group_by_text, run_protocol
from probes.protocol.settings import ProtocolSettings
from probes.protocol.trace_sources import rollouts_as_traces
from probes.report.report import as_page, findings, write_report
from probes.states.alignment import align, open_models
from probes.states.extract import Reading, extract_states, open_states
from probes.svm.kernels import StatesError
from tests.probes.test_states import save_model
from tracekit.study.tasks.world import World, label_steps, make_problems, teach

WORLD = World(teacher_errors=0.6)
SETTINGS = ProtocolSettings(
    features=("step_correct",),
    outer_folds=3,
    inner_folds=2,
    repeats=1,
    costs=(0.1, 1.0),
    gammas=(1.0,),
    permutations=39,
    draws=20,
    max_rows=200,
    band=(2,),
)
NASTY = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """base; `same`, its copy; `planted`, where layer 2 holds whether the step is correct."""
    folder = tmp_path_factory.mktemp("probe")
    problems = make_problems(WORLD, "train", 50, seed=3)
    written = teach(WORLD, problems, seed=3)
    steps = label_steps(problems, written, WORLD)
    traces = written.join(problems.select("problem_id", "problem", "kind"), on="problem_id")
    traces = traces.with_columns((pl.col("response").str.len_chars() % 2 == 0).alias(NASTY))
    reading = Reading(positions=("step_end", "before_answer"), layers=(1, 2), log_probs=True)
    base = extract_states(save_model(folder / "model"), traces, steps, folder / "base", reading)
    for name in ("same", "planted"):
        shutil.copytree(base.folder, folder / name)
    array = np.load(folder / "planted" / "layer_002.npy")
    right = base.index.join(steps, on=["trace_id", "step"], how="left", maintain_order="left")["correct"]
    array[:, 0] += np.where(right.fill_null(True).to_numpy(), 0.0, 6.0) * array.std()
    np.save(folder / "planted" / "layer_002.npy", array)
    return Source("world-teacher", traces, steps, {n: [folder / n] for n in ("base", "same", "planted")})


@pytest.fixture(scope="module")
def result(source: Source) -> ProbeResult:
    return run_protocol(source, SETTINGS)


def verdict(result: ProbeResult, feature: str, a: str) -> dict:
    rows = result.tables["effects"].filter(estimand="delta", feature=feature, a=a, b="base")
    return rows.row(0, named=True)


def test_what_was_planted_is_found_and_what_neither_model_has_is_no_contrast(result):
    same, planted = (verdict(result, "step_correct", arm) for arm in ("same", "planted"))
    assert (same["effect"], same["verdict"]) == (0, "not decodable")
    assert (planted["verdict"], planted["direction"]) == ("changed", "gained")
    assert planted["low"] > 0.05


def test_a_copy_of_a_model_that_has_the_feature_is_equivalent_and_a_wiped_one_has_lost_it(source, tmp_path):
    planted = source.states["planted"][0]
    shutil.copytree(planted, tmp_path / "wiped")
    noise = np.random.default_rng(0).standard_normal(np.load(planted / "layer_002.npy").shape).astype(np.float32)
    np.save(tmp_path / "wiped" / "layer_002.npy", noise)
    states = {"base": [planted], "copy": [planted], "wiped": [tmp_path / "wiped"]}
    high = run_protocol(Source("t", source.traces, source.steps, states), SETTINGS)
    copy, wiped = (verdict(high, "step_correct", arm) for arm in ("copy", "wiped"))
    assert copy["verdict"] == "equivalent"
    assert (wiped["verdict"], wiped["direction"]) == ("changed", "lost")
    assert {"step_correct, wiped against base"} == {
        f["sentence"].partition(":")[0]
        for f in findings(high)
        if f["verdict"] == "lost" and "against base" in f["sentence"]
    }


def test_a_path_that_is_cut_off_is_refused_with_the_path_that_would_do(source):
    short = SETTINGS.model_copy(update={"costs": (1e-3,), "limits": (1e-4, 1e-3)})
    effects = run_protocol(source, short).tables["effects"].filter(estimand="delta", a="planted", b="base")
    row = effects.row(0, named=True)
    if row["verdict"] == "refused":
        assert "set limits=[" in row["why"]
    cells = run_protocol(source, SETTINGS).tables["cells"]
    assert (cells["at_edge"] == 0).all()


def test_whether_a_feature_is_there_is_told_for_each_model(result):
    found = result.tables["decodability"].filter(feature="step_correct")
    p = dict(zip(found["model"], found["p"]))
    assert p["planted"] == pytest.approx(1 / 40)
    assert p["base"] == p["same"]


def test_arms_of_unequal_seeds_are_compared_on_those_that_both_have(source):
    base, same, planted = (source.states[n][0] for n in ("base", "same", "planted"))
    states = {"base": [base], "three": [same, same, planted], "two": [same, planted]}
    effects = run_protocol(Source("t", source.traces, source.steps, states), SETTINGS).tables["effects"]
    seeds = {(r["a"], r["b"]): r["seeds"] for r in effects.filter(estimand="delta").iter_rows(named=True)}
    assert seeds == {("three", "base"): 3, ("two", "base"): 2, ("two", "three"): 2}


def test_geometry_of_a_copy_is_the_bases(result):
    layer = result.tables["geometry"].filter(feature="step_correct", layer=2)
    same = layer.filter(model="same").row(0, named=True)
    base = layer.filter(model="base").row(0, named=True)
    assert same["cka"] == pytest.approx(1)
    assert same["cosine"] == pytest.approx(1)
    assert same["transfer"] == base["transfer"]
    assert layer.filter(model="planted")["margin"][0] != base["margin"]


def test_the_same_seed_gives_the_same_tables(source, result):
    again = run_protocol(source, SETTINGS)
    for name, table in result.tables.items():
        assert table.equals(again.tables[name]), name


def test_rows_are_matched_by_trace_and_step_not_by_order(source, tmp_path):
    shuffled = tmp_path / "shuffled"
    shutil.copytree(source.states["base"][0], shuffled)
    states = open_states(shuffled)
    order = np.random.default_rng(0).permutation(len(states.index))
    for layer in states.layers:
        np.save(shuffled / f"layer_{layer:03d}.npy", np.asarray(states.layer(layer))[order])
    states.index[order.tolist()].with_columns(row=pl.int_range(pl.len())).write_parquet(shuffled / "index.parquet")
    aligned = align(open_models({"base": source.states["base"], "moved": [shuffled]}), "step_end")
    every = np.arange(len(aligned.index))
    np.testing.assert_array_equal(aligned.layer("base", 0, 2, every), aligned.layer("moved", 0, 2, every))


# ---------------------------------------------------------------- other sources


def crossed(source: Source, steps: pl.DataFrame, *names: str) -> ProbeResult:
    others = [Source(name, source.traces, steps, source.states) for name in names]
    return run_protocol(source, SETTINGS, others=others)


def test_the_same_traces_under_another_name_give_the_same_matrix_and_differences(source, result):
    found = crossed(source, source.steps, "planted", "same").tables
    for name in ("planted", "same"):
        other, neutral = (found["sources"].filter(source=s).drop("source") for s in (name, "world-teacher"))
        assert other.equals(neutral)
    effects = found["source_effects"]
    pair = {"a": "planted", "b": "base"}
    row = effects.filter(source="planted", **pair).row(0, named=True)
    first = result.tables["effects"].filter(estimand="delta", **pair).row(0, named=True)
    assert {k: row[k] for k in ("effect", "low", "high", "seeds")} == {
        k: first[k] for k in ("effect", "low", "high", "seeds")
    }
    assert effects.filter(source="own rollouts").select("a", "b").rows() == [("planted", "same")]  # the base wrote none


def test_models_on_their_own_rollouts_are_resampled_apart(source):
    effects = (
        crossed(source, source.steps, "planted", "same", "base").tables["source_effects"].filter(a="same", b="base")
    )
    paired, apart = (effects.filter(source=s).row(0, named=True) for s in ("base", "own rollouts"))
    assert paired["effect"] == apart["effect"] == 0
    assert paired["high"] == 0  # a copy of the base on the same tokens
    assert apart["high"] > 0.01


def test_another_source_keeps_the_neutral_share_of_positive_rows(source):
    wrong = source.steps.with_row_index().filter(~pl.col("correct"))["index"]
    fewer = source.steps.with_row_index().filter(~pl.col("index").is_in(wrong[::2].implode())).drop("index")
    matrix = crossed(source, fewer, "planted").tables["sources"].filter(model="base")
    neutral, other = (matrix.filter(source=s).row(0, named=True) for s in ("world-teacher", "planted"))
    assert other["rows"] < neutral["rows"]
    assert other["positive_share"] == pytest.approx(neutral["positive_share"], abs=0.01)


def test_a_source_without_the_rarer_class_says_so_and_gives_no_difference(source):
    tables = crossed(source, source.steps.with_columns(correct=pl.lit(True)), "planted").tables
    assert tables["source_effects"].is_empty()
    row = tables["sources"].filter(source="planted", model="base").row(0, named=True)
    assert row["auc"] is None
    assert "only True" in row["why_not"]


def test_rollouts_become_traces_that_tell_wrong_from_unknown():
    outcomes = ["correct", "wrong", "no_answer", "timeout", "correct"]
    frame = pl.DataFrame(
        {
            "problem_id": "p",
            "problem": "2 + 2",
            "response": ["4", "5", "so", "x", "  "],
            "outcome": outcomes,
            "sample": 0,
        }
    )
    traces = rollouts_as_traces(pl.concat([frame, frame]))
    assert traces["correct"].to_list() == [True, False, False, None] * 2
    assert traces["trace_id"].n_unique() == 8


# ---------------------------------------------------------------- what cannot be probed


def test_states_of_another_width_are_refused_by_file(source, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(source.states["base"][0], broken)
    np.save(broken / "layer_002.npy", np.load(broken / "layer_002.npy")[:, :7])
    with pytest.raises(StatesError, match=r"layer_002\.npy is \(\d+, 7\), its index says \(\d+, 32\)"):
        run_protocol(
            Source("t", source.traces, source.steps, {"base": [broken], "same": source.states["same"]}), SETTINGS
        )


def test_states_that_are_not_finite_are_refused_by_model_and_layer(source, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(source.states["base"][0], broken)
    array = np.load(broken / "layer_001.npy")
    array[:, 3] = np.nan
    np.save(broken / "layer_001.npy", array)
    with pytest.raises(StatesError, match=r"base, seed 0, layer 1: \d+ of \d+ rows are NaN"):
        run_protocol(
            Source("t", source.traces, source.steps, {"base": [broken], "same": source.states["same"]}), SETTINGS
        )


def test_a_label_that_follows_the_problem_exactly_is_refused(source):
    constant = source.traces.with_columns((pl.col("problem_id").rank() % 2 == 0).alias("odd"))
    settings = SETTINGS.model_copy(update={"features": ("odd",), "position": "step_end"})
    with pytest.raises(FeatureError, match=r"odd is the same in all rows of each of \d+ problems"):
        run_protocol(Source("t", constant, source.steps, source.states), settings)


def test_a_class_that_too_few_problems_show_is_named_with_its_count(source):
    rare = source.steps.with_columns(rare=pl.int_range(pl.len()) < 2)
    with pytest.raises(
        FeatureError, match=r"rare, class true against the rest: its rarer side is in 2 rows of 1 problem"
    ):
        run_protocol(
            Source("t", source.traces, rare, source.states), SETTINGS.model_copy(update={"features": ("rare",)})
        )


def test_a_missing_base_is_told_with_the_models_there_are(source):
    with pytest.raises(FeatureError, match="no model is named 'root'; models: base, same, planted"):
        run_protocol(source, SETTINGS.model_copy(update={"base": "root"}))


def test_a_base_alone_has_nothing_to_be_compared_with(source):
    with pytest.raises(FeatureError, match="nothing to compare base with"):
        run_protocol(Source("t", source.traces, source.steps, {"base": source.states["base"]}), SETTINGS)


def test_a_group_column_overrules_the_text():
    traces = pl.DataFrame({"problem_id": ["p", "q", "r"], "problem": ["a b c"] * 3, "group": ["x", "x", "y"]})
    groups = group_by_text(traces)
    assert groups["p"] == groups["q"] != groups["r"]
    assert len(set(group_by_text(traces.drop("group")).values())) == 1


# ---------------------------------------------------------------- the page


class Seen(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]


@pytest.fixture(scope="module")
def page(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quick = SETTINGS.model_copy(update={"features": ("step_correct", NASTY), "permutations": 19})
    one_arm = {name: source.states[name] for name in ("base", "planted")}
    return write_report(
        run_protocol(Source(NASTY, source.traces, source.steps, one_arm), quick), tmp_path_factory.mktemp("page")
    )


def test_the_page_needs_no_network_and_runs_no_script_but_its_own(page):
    seen = Seen()
    seen.feed(page.read_text())
    assert seen.tags.count("script") == 1
    assert "script-src 'sha256-" in page.read_text()
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in seen.addresses)
    assert "@import" not in page.read_text()
    assert "url(" not in page.read_text()


def test_a_feature_named_like_a_script_is_text(page):
    assert "&lt;script&gt;" in page.read_text()
    assert page.read_text().count("<script") == 1
    assert "<script" not in (page.parent / "report.md").read_text()


def test_each_figure_comes_in_both_themes(page):
    text = page.read_text()
    assert text.count('<img class="for-light"') == text.count('<img class="for-dark"') >= 6


def test_the_page_says_what_the_tables_say(page, result):
    effects = pl.read_parquet(page.parent / "tables" / "effects.parquet").filter(estimand="delta")
    row = effects.filter(feature="step_correct").row(0, named=True)
    assert f"{row['effect']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" in page.read_text()
    assert len(findings(result)) == len(result.tables["effects"].filter(estimand="delta"))
    written = json.loads(re.search(r"```\n(.*?)```", (page.parent / "report.md").read_text(), re.S).group(1))
    assert written["settings"]["margin"] == 0.02


def test_one_checkpoint_an_arm_is_said_to_speak_of_these_checkpoints_only(result):
    assert "these checkpoints only" in as_page(result, []).render()


def test_only_the_estimands_that_are_asked_for_are_computed_and_least_squares_stands_beside_hinge(source):
    few = run_protocol(source, SETTINGS.model_copy(update={"estimands": ("least_squares",)})).tables["effects"]
    assert few["estimand"].unique(maintain_order=True).to_list() == ["delta", "least_squares"]
    planted = {row["estimand"]: row["effect"] for row in few.filter(a="planted", b="base").iter_rows(named=True)}
    assert planted["least_squares"] > 0.2
    assert planted["delta"] > 0.2
    assert planted["least_squares"] != planted["delta"]
    with pytest.raises(ValueError, match="no_such_thing' is not registered; registered: delta"):
        run_protocol(source, SETTINGS.model_copy(update={"estimands": ("no_such_thing",)}))


def test_the_report_shows_where_else_a_probe_works(source, tmp_path):
    features = ("step_correct", "value_parity")  # every step has rows enough of both parities
    result = run_protocol(source, SETTINGS.model_copy(update={"estimands": (), "features": features}))
    table = result.tables["generalisation"]
    assert set(table["across"]) == {"step", "layer", "model"}
    of_models = {
        (a, b): auc
        for a, b, auc in table.filter(feature="step_correct", across="model").select("trained", "tested", "auc").rows()
    }
    assert of_models["base", "same"] == of_models["base", "base"]  # the same states
    assert of_models["planted", "planted"] > 0.9
    page = write_report(result, tmp_path)
    assert "Where else a probe works" in page.read_text(encoding="utf-8")
