"""Published values: LUFFY's code and TRL 1.16 on seeded tensors, a part of them in data/."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GIVEN = ROOT / ".." / "shared" / "oracle" / "losses.json"
OWN = Path(__file__).parent / "data" / "losses.json"


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location("loss_parity", ROOT / "benchmarks" / "loss_parity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["loss_parity"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [OWN, GIVEN], ids=["own", "given"])
def test_losses_advantages_and_gradients_are_the_published_ones(parity, path):
    if not path.exists():
        pytest.skip(f"{path} is not here")
    tallies = parity.run(path)
    assert sum(tally.cases for tally in tallies.values()) == len(json.loads(path.read_text())["cases"])
    for name, tally in tallies.items():
        assert not tally.skipped, name
        assert tally.worst <= 1e-5, f"{name} is off by {tally.worst:.1e} at {tally.worst_at}"


def test_a_case_that_cannot_be_compared_fails_the_command(parity, tmp_path, monkeypatch, capsys):
    tree = json.loads(OWN.read_text())
    case = next(case for case in tree["cases"] if case["fn"] == "trl_loss")
    case["opts"]["loss_type"] = "unheard_of"
    (tmp_path / "losses.json").write_text(json.dumps({"cases": [case]}))
    (tmp_path / "losses.npz").write_bytes(OWN.with_suffix(".npz").read_bytes())
    monkeypatch.setattr(sys, "argv", ["loss_parity.py", str(tmp_path / "losses.json")])
    assert parity.main() == 1
    assert "unheard_of" in capsys.readouterr().out


def test_a_wrong_value_fails_the_command(parity, tmp_path, monkeypatch):
    tree = json.loads(OWN.read_text())
    case = next(case for case in tree["cases"] if case["fn"] == "trl_loss")
    case["out"]["loss"] += 1e-4
    (tmp_path / "losses.json").write_text(json.dumps({"cases": [case]}))
    (tmp_path / "losses.npz").write_bytes(OWN.with_suffix(".npz").read_bytes())
    monkeypatch.setattr(sys, "argv", ["loss_parity.py", str(tmp_path / "losses.json")])
    assert parity.main() == 1
