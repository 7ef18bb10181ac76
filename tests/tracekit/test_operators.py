"""Rules, measurements, formats and exporters of a user's own file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import polars as pl
import pytest

from tracekit.core.settings import SettingsError
from tracekit.curation.curate import curate
from tracekit.curation.funnel import severe_rules
from tracekit.curation.operator_files import load_operators
from tracekit.curation.operator_runs import Job, run_operator
from tracekit.curation.operators import COLUMNS, OperatorError
from tracekit.curation.planning import plan
from tracekit.curation.settings import CurateSettings
from tracekit.reading.readers import SourceSettings

RULES = '''
import re

from tracekit import exporter, measurement, rule

HEDGE = re.compile(r"\\bwait\\b")


def count(text):
    return len(HEDGE.findall(text))


@measurement
def hedges(response: str) -> int:
    return count(response)


@measurement
def length(response: str) -> float:
    return len(response)


@rule(reason="hedges too often")
def max_hedges(hedges: int, threshold: int = 1) -> bool:
    return hedges <= threshold


@rule
def no_seven(problem: str, gold: str):
    """The answer is seven."""
    return gold != "7" or "it is seven"


@exporter(name="question-answer")
def question_answer(problem: str, response: str) -> dict:
    return {"q": problem, "a": response}
'''


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    rows = [
        {"problem": f"What is {n} + 1?", "answer": str(n + 1), "response": f"{'wait, ' * (n % 4)}\\boxed{{{n + 1}}}"}
        for n in range(2, 12)
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def make(traces: Path, tmp_path: Path) -> Callable[..., CurateSettings]:
    """Write the user's file and return a recipe that names it."""

    def make(text: str = RULES, **more: object) -> CurateSettings:
        (tmp_path / "my_rules.py").write_text(text, encoding="utf-8")
        return CurateSettings(
            output=tmp_path / "run",
            sources=(SourceSettings(path=str(traces)),),
            operators=(str(tmp_path / "my_rules.py"),),
            **more,  # type: ignore[arg-type]
        )

    return make


def decisions(run: Path, rule: str) -> dict[str, pl.DataFrame]:
    ledger = pl.read_parquet(run / "ledger.parquet").filter(pl.col("rule") == rule)
    return {str(v): part for (v,), part in ledger.group_by("verdict")}


def test_a_rule_on_a_measurement_drops_rows_and_the_ledger_says_why(make) -> None:
    run = curate(make())
    found = decisions(run, "max_hedges")
    assert found["drop"]["reason"].unique().to_list() == ["hedges too often"]
    assert sorted(found["drop"]["measured"].to_list()) == ["2", "2", "2", "3", "3", "3"]
    assert decisions(run, "no_seven")["drop"]["reason"].to_list() == ["it is seven"]
    kept = pl.read_parquet(run / "curated.parquet")["gold"].to_list()
    assert kept == ["5", "6", "9", "10"]


def test_the_recipe_sets_the_threshold_or_switches_the_rule_off(make) -> None:
    assert "drop" not in decisions(curate(make(rules={"max_hedges": 3})), "max_hedges")
    run = curate(make(rules={"max_hedges": "off"}))
    assert not decisions(run, "max_hedges")
    with pytest.raises(OperatorError, match="did you mean max_hedges"):
        curate(make(rules={"max_hedge": 3}))
    with pytest.raises(OperatorError, match="takes no threshold"):
        curate(make(rules={"no_seven": 3}))


def stage_states(settings: CurateSettings) -> dict[str, list[str]]:
    folder = settings.output / "stages"
    return {kind: sorted(p.name for p in folder.glob(f"{kind}-*")) for kind in ("measurement", "rule", "verify")}


def test_what_has_not_changed_is_never_run_again_and_what_has_is(make) -> None:
    curate(make())
    before = stage_states(make())
    # Comments, blank lines and an unrelated function leave every stage as it is.
    settings = make(RULES + "\n\n# a note\ndef unrelated():\n    return 1\n")
    assert {state for name, state, _ in plan(settings) if name in before} == {"made"}
    # A constant that one measurement reaches through a helper: it and the rule on it run again, `length` does not.
    settings = make(RULES.replace("bwait", "bso"))
    curate(settings)
    after = stage_states(settings)
    assert len(set(after["measurement"]) - set(before["measurement"])) == 1
    assert len(set(after["rule"]) - set(before["rule"])) == 1
    assert after["verify"] == before["verify"]
    hedges = pl.read_parquet(settings.output / "operators" / "hedges.parquet")
    assert hedges["hedges"].sum() == 0
    # A threshold decides anew, and measures nothing.
    curate(make(RULES.replace("bwait", "bso"), rules={"max_hedges": 7}))
    assert stage_states(settings)["measurement"] == after["measurement"]


def test_an_exception_names_file_line_rule_and_row(make) -> None:
    broken = RULES.replace("return hedges <= threshold", "return 1 / (hedges - 2) > threshold")
    with pytest.raises(OperatorError) as caught:
        curate(make(broken))
    said = str(caught.value)
    line = broken.splitlines().index("    return 1 / (hedges - 2) > threshold") + 1
    assert f"my_rules.py, line {line}: rule max_hedges on trace " in said
    assert said.endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("X = 1\n", "registers nothing"),
        ("def f(:\n", "my_rules.py, line 1: SyntaxError"),
        ("import nothing_of_the_kind\n", "my_rules.py, line 1: ModuleNotFoundError"),
        ("from tracekit import measurement\n@measurement\ndef m(response):\n    return 1\n", "annotate it with -> int"),
        ("from tracekit import measurement\n@measurement\ndef m(respnse) -> int:\n    return 1\n", "no column respnse"),
        (
            "from tracekit import measurement\n@measurement\ndef steps(response) -> int:\n    return 1\n",
            "name is taken",
        ),
        ("from tracekit import rule\n@rule\ndef max_tokens(response):\n    return True\n", "name is taken"),
        ("from tracekit import rule\n@rule\ndef r(hedgs):\n    return True\n", "there is no column hedgs"),
        ("from tracekit import rule\n@rule\ndef r(*columns):\n    return True\n", "must name the columns"),
        (
            "from tracekit import rule\n@rule\ndef r(response, threshold):\n    return True\n",
            "threshold has no default",
        ),
        ("from tracekit import exporter\n@exporter(name='luffy')\ndef e(problem):\n    return {}\n", "name is taken"),
        (
            "from tracekit import rule\n@rule\ndef r(gold):\n    return True\n@rule\ndef r(gold):\n    return False\n",
            "rule r is defined at",
        ),
    ],
)
def test_a_fault_in_the_file_is_told_before_anything_is_read(make, text: str, said: str) -> None:
    settings = make(text)
    with pytest.raises(OperatorError, match=said.replace("(", r"\(")):
        curate(settings)
    assert not settings.output.exists()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("'two'", "expected int or None"),
        ("True", "expected int or None"),
        ("10**30", "64 bits"),
        ("1.5", "expected int"),
    ],
)
def test_a_measurement_of_another_type_is_named(make, result: str, said: str) -> None:
    text = f"from tracekit import measurement\n@measurement\ndef m(response) -> int:\n    return {result}\n"
    with pytest.raises(OperatorError, match=f"measurement m returned .* on trace [0-9a-f]+; .*{said}|{said}"):
        curate(make(text))


def test_a_rule_must_say_yes_no_why_or_nothing(make) -> None:
    text = "from tracekit import rule\n@rule\ndef r(gold):\n    return 3\n"
    with pytest.raises(OperatorError, match=r"rule r returned 3 on trace .*; expected True, False, None or a text"):
        curate(make(text))


def test_unknown_stays_unknown(make) -> None:
    text = (
        "from tracekit import measurement, rule\n"
        "@measurement\ndef even(gold) -> bool:\n    return int(gold) % 2 == 0 if gold != '4' else None\n"
        "@rule\ndef must_be_even(even):\n    return even\n"
        "@measurement\ndef level_twice(level) -> float:\n    return 2 * level\n"
        "@measurement\ndef has_level(level=None) -> bool:\n    return level is not None\n"
    )
    run = curate(make(text))
    found = decisions(run, "must_be_even")
    assert found["keep"].height == 5  # 6, 8, 10 and 12 are even, 4 is not known
    values = {n: pl.read_parquet(run / "operators" / f"{n}.parquet")[n] for n in ("level_twice", "has_level")}
    assert values["level_twice"].null_count() == 10  # the source has no level: the function is not called
    assert values["has_level"].to_list() == [False] * 10


def test_two_files_may_not_share_a_name(make, tmp_path: Path) -> None:
    settings = make()
    (tmp_path / "more.py").write_text(RULES, encoding="utf-8")
    both = settings.model_copy(update={"operators": (*settings.operators, str(tmp_path / "more.py"))})
    with pytest.raises(OperatorError, match=r"measurement hedges is defined at .* too"):
        curate(both)


def test_an_exporter_writes_its_rows(make, tmp_path: Path) -> None:
    settings = make(export={"formats": ("question-answer", "trl-sft")})
    run = curate(settings)
    lines = (run / "export" / "question-answer" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    curated = pl.read_parquet(run / "curated.parquet")
    assert [json.loads(line) for line in lines] == [
        {"q": q, "a": a} for q, a in curated.select("problem", "response").iter_rows()
    ]
    with pytest.raises(SettingsError, match="did you mean question-answer"):
        curate(make(export={"formats": ("question-anser",)}))


def test_an_exporter_may_write_parquet_for_problems(make) -> None:
    import pyarrow.parquet as pq

    text = (
        "import pyarrow as pa\nfrom tracekit import exporter\n"
        "@exporter(each='problem', schema=pa.schema([('q', pa.string()), ('n', pa.int8())]))\n"
        "def mine(problem, gold):\n    return {'q': problem, 'n': NUMBER} if gold != '5' else None\n"
    )
    run = curate(make(text.replace("NUMBER", "int(gold)"), export={"formats": ("mine",)}))
    table = pq.read_table(run / "export" / "mine" / "train.parquet")
    assert table.schema.names == ["q", "n"]
    assert sorted(table["n"].to_pylist()) == [3, 4, 6, 7, 8, 9, 10, 11, 12]
    with pytest.raises(SettingsError, match="does not fit its schema"):
        curate(make(text.replace("NUMBER", "'four'"), export={"formats": ("mine",)}))


def test_an_exporter_that_fails_names_the_row_and_leaves_the_old_export(make) -> None:
    good = make(export={"formats": ("question-answer",)})
    run = curate(good)
    before = (run / "export" / "question-answer" / "train.jsonl").read_bytes()
    for result, said in (
        ("[1]", "expected a dict"),
        ("{'a': {1}}", "not JSON serializable"),
        ("1 / 0", "ZeroDivision"),
    ):
        text = RULES.replace('return {"q": problem, "a": response}', f"return {result}")
        with pytest.raises(OperatorError, match=f"exporter question-answer .*on trace .*{said}"):
            curate(make(text, export={"formats": ("question-answer",)}))
    assert (run / "export" / "question-answer" / "train.jsonl").read_bytes() == before


def test_a_source_format_of_the_file_reads_and_is_part_of_the_key(make, traces: Path) -> None:
    rows = [
        {"frage": f"Was ist {n} + {n}?", "loesung": str(2 * n), "antwort": f"\\boxed{{{2 * n}}}"} for n in (1, 2, 3)
    ]
    traces.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    text = (
        "from tracekit import source_format\n@source_format('quiz', 'frage', 'loesung', 'antwort')\n"
        "def read(frame):\n    return frame.select(problem='frage', gold='loesung', response='antwort')\n"
    )
    run = curate(make(text))
    assert pl.read_parquet(run / "curated.parquet")["gold"].to_list() == ["2", "4", "6"]
    stages = sorted(p.name for p in (run / "stages").glob("sources-*"))
    curate(make(text.replace("response='antwort')", "response='antwort').head(2)")))
    assert pl.read_parquet(run / "curated.parquet").height == 2
    assert len(list((run / "stages").glob("sources-*"))) == len(stages) + 1
    # Without the file, the format is not known: nothing of one recipe is left for the next.
    load_operators(())
    from tracekit.reading import formats

    assert "quiz" not in {one.name for one in formats.LAYOUTS}


def test_other_interpreters_give_the_same_rows_and_tell_the_same_faults(make, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracekit.curation import operator_runs

    settings = make()
    rows = pl.DataFrame(
        {"trace_id": [f"{n:04d}" for n in range(500)], "response": ["wait " * (n % 7) for n in range(500)]}
    )
    here = run_operator(Job(settings.operators, "measurement", "hedges"), rows, workers=1)
    monkeypatch.setattr(operator_runs, "WORTH_SECONDS", 0.0)
    elsewhere = run_operator(Job(settings.operators, "measurement", "hedges"), rows, workers=2)
    assert elsewhere.equals(here)
    make(RULES.replace("return count(response)", "return count(response) if response else 1 // 0"))
    late = rows.with_columns(response=pl.Series(["wait"] * 499 + [""]))
    with pytest.raises(OperatorError, match=r"my_rules.py, line \d+: measurement hedges on trace 0499: ZeroDivision"):
        run_operator(Job(settings.operators, "measurement", "hedges"), late, workers=2)


def test_a_curation_that_was_stopped_goes_on_with_the_batches_that_stand(make, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracekit.curation import operator_stages

    monkeypatch.setattr(operator_stages, "BATCH", 3)
    log = make().output.parent / "calls.log"
    counted = (
        "from tracekit import measurement\n@measurement\ndef m(trace_id) -> int:\n"
        f"    with open({str(log)!r}, 'a') as file:\n        file.write(trace_id + chr(10))\n"
        f"    if len(open({str(log)!r}).readlines()) == 5:\n        raise KeyboardInterrupt\n    return 1\n"
    )
    with pytest.raises(KeyboardInterrupt):
        curate(make(counted))
    run = curate(make(counted))
    calls = log.read_text().split()
    assert len(calls) == 5 + 7  # the batch of three that was whole is not run again
    assert pl.read_parquet(run / "operators" / "m.parquet")["m"].to_list() == [1] * 10


def test_an_entry_point_is_named_by_its_name(make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "installed_rules.py").write_text(RULES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = metadata.EntryPoint("house-rules", "installed_rules", "tracekit.operators")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "tracekit.operators" else [])
    load_operators.__globals__["_loaded"].cache_clear()
    run = curate(make().model_copy(update={"operators": ("house-rules",)}))
    assert decisions(run, "max_hedges")["drop"].height
    with pytest.raises(OperatorError, match=r"other is no \.py file and no entry point .*house-rules"):
        curate(make().model_copy(update={"operators": ("other",)}))


def test_the_columns_that_operators_may_read_are_those_of_the_tables(make) -> None:
    run = curate(make())
    for table, columns in COLUMNS.items():
        assert set(columns) <= set(pl.read_parquet_schema(run / f"{table}.parquet")), table


def test_severe_rules_count_a_users_rule() -> None:
    rows = pl.DataFrame({"trace_id": ["a", "b"], "outcome": ["correct", "correct"]})
    ledger = pl.DataFrame(
        {"row_id": ["a"], "rule": ["mine"], "threshold": [""], "verdict": ["drop"], "measured": ["false"]}
    )
    assert severe_rules(ledger, rows).drops == {("mine", ""): (1, [{"row_id": "a", "measured": "false"}])}


def test_the_command_takes_operators_and_says_faults_in_a_sentence(make, tmp_path: Path, traces: Path) -> None:
    make("from tracekit import rule\n@rule\ndef r(gold):\n    return 1 / 0\n")
    command = [
        sys.executable,
        "-m",
        "tracekit.cli",
        "curate",
        str(traces),
        "--operators",
        str(tmp_path / "my_rules.py"),
    ]
    done = subprocess.run([*command, f"output={tmp_path / 'cli'}"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "my_rules.py, line 4: rule r on trace" in done.stderr
    assert "Traceback" not in done.stderr
