"""`tracekit verify` and `tracekit audit-gold` on files."""

import gzip
import json

import polars as pl
import pytest

from tracekit.cli.verify import command_audit_gold, command_verify

ROWS = [
    {"response": "\\boxed{72}", "gold": "72"},
    {"response": "\\boxed{71}", "gold": "72"},
    {"response": "I do not know", "gold": "72"},
    {"response": "\\boxed{72}", "gold": "\\frac{"},
    {"response": None, "gold": "72"},
]
OUTCOMES = ["correct", "wrong", "no_answer", "unparsed_gold", "no_answer"]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl_gets_its_verdicts_beside_it(tmp_path, capsys):
    command_verify(write_jsonl(tmp_path / "rows.jsonl", ROWS))
    lines = (tmp_path / "rows.verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    verdicts = [json.loads(line) for line in lines]
    assert [verdict["outcome"] for verdict in verdicts] == OUTCOMES
    assert [verdict["row"] for verdict in verdicts] == [0, 1, 2, 3, 4]
    said = capsys.readouterr()
    assert "25.00 %" in said.out  # one of the four whose gold can be read
    assert "row 3" in said.err


def test_parquet_gets_parquet(tmp_path):
    pl.DataFrame(ROWS).write_parquet(tmp_path / "rows.parquet")
    command_verify(tmp_path / "rows.parquet", workers=2)
    assert pl.read_parquet(tmp_path / "rows.verdicts.parquet")["outcome"].to_list() == OUTCOMES


def test_columns_and_output_may_be_named_and_nested(tmp_path):
    rows = [{"said": [{"role": "assistant", "content": "\\boxed{2}"}], "reward_model": {"ground_truth": "2"}}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    command_verify(path, response="said", output=tmp_path / "out" / "verdicts.parquet")
    assert pl.read_parquet(tmp_path / "out" / "verdicts.parquet")["correct"].to_list() == [True]


def test_the_policy_may_be_set(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"response": "The answer is 72.", "gold": "72"}])
    command_verify(path, require_box=True)
    assert '"no_answer"' in (tmp_path / "rows.verdicts.jsonl").read_text(encoding="utf-8")


def test_a_lone_surrogate_is_written_as_its_escape(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"response": "\\\\boxed{\\ufffd7}", "gold": "72"}\n', encoding="utf-8")
    command_verify(path)
    assert (tmp_path / "rows.verdicts.jsonl").exists()


def test_faults_name_the_file_and_what_it_has(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        command_verify(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match=r"expected \.jsonl, \.json, \.csv or \.parquet"):
        command_verify(write_jsonl(tmp_path / "rows.txt", ROWS))
    with pytest.raises(ValueError, match="there is no gold column; there are response, other"):
        command_verify(write_jsonl(tmp_path / "rows.jsonl", [{"response": "1", "other": "2"}]))
    with pytest.raises(ValueError, match="there is no column nowhere"):
        command_verify(write_jsonl(tmp_path / "rows.jsonl", ROWS), gold="nowhere")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is damaged"):
        command_verify(tmp_path / "damaged.parquet")


def test_files_of_several_kinds_are_read_alike(tmp_path, capsys):
    rows = [{"response": "\\boxed{2}", "gold": "2"}, {"response": "\\boxed{3}", "gold": "2"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "c.csv").write_text("response,gold\n\\boxed{2},2\n\\boxed{3},2\n", encoding="utf-8")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    files = [tmp_path / name for name in ("a.jsonl", "b.json", "c.csv", "d.jsonl.gz")]
    command_verify(*files, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["accuracy"], told["outcomes"]) == (8, 0.5, {"correct": 4, "wrong": 4})


def test_an_accuracy_below_the_wanted_one_fails(tmp_path, capsys):
    file = write_jsonl(tmp_path / "rows.jsonl", [{"response": "\\boxed{3}", "gold": "2"}])
    with pytest.raises(SystemExit) as left:
        command_verify(file, fail_under=0.5)
    assert left.value.code == 3
    assert "below --fail-under 0.5" in capsys.readouterr().err


def test_the_audit_writes_its_findings_and_shows_them(tmp_path, capsys):
    rows = [
        {"problem": "Simplify $\\frac{2}{4}$.", "answer": "\\frac{1}{2}"},
        {"problem": "Which [/animal]?", "answer": "\\text{the [/brown] fox}"},
        {"problem": "How many?", "answer": "{"},
        {"problem": "And how many?", "answer": "72"},
    ]
    command_audit_gold(write_jsonl(tmp_path / "rows.jsonl", rows))
    findings = [json.loads(line) for line in (tmp_path / "rows.audit.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(finding["row"], finding["fault"]) for finding in findings] == [(0, "echo"), (1, "text"), (2, "unparsed")]
    assert "4 golds, 3 findings" in capsys.readouterr().out


def test_a_judge_needs_its_url_and_its_model(tmp_path):
    with pytest.raises(ValueError, match="go together"):
        command_verify(write_jsonl(tmp_path / "rows.jsonl", ROWS), judge="http://127.0.0.1:1/v1")


def test_an_endpoint_that_is_not_there_leaves_the_verdicts(tmp_path, capsys):
    rows = [{"response": "an isosceles triangle", "answer": r"\text{isosceles}"}, {"response": "4", "answer": "4"}]
    command_verify(write_jsonl(tmp_path / "rows.jsonl", rows), judge="http://127.0.0.1:1/v1", judge_model="m")
    assert "asked 1 times, 0 from the cache, 1 without an answer" in capsys.readouterr().err
