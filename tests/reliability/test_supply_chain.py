"""What others made and we ship or install: recorded, pinned by digest, compared with what was published."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KATEX = ROOT / "tracekit" / "viewer" / "page" / "katex"
RECORD = json.loads((ROOT / "tracekit" / "viewer" / "katex.json").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements-ci.txt").read_text(encoding="utf-8")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_katex_is_what_the_record_says() -> None:
    files = {path.relative_to(KATEX).as_posix(): digest(path) for path in KATEX.rglob("*") if path.is_file()}
    assert files == RECORD["files"]
    assert f'version:"{RECORD["version"]}"' in (KATEX / "katex.min.js").read_text(encoding="utf-8")
    assert "MIT License" in (KATEX / "LICENSE").read_text(encoding="utf-8")
    assert RECORD["licence"] == "MIT"
    assert RECORD["version"] in (ROOT / "docs" / "viewer.md").read_text(encoding="utf-8")


def test_katex_is_the_published_package(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    asked = ["npm", "pack", f"katex@{RECORD['version']}", "--silent"]
    try:
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if done.returncode:
        pytest.skip("npm's registry cannot be reached")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    package = tmp_path / "package"
    assert json.loads((package / "package.json").read_text())["license"] == RECORD["licence"]
    for name in RECORD["files"]:
        published = package / (name if name == "LICENSE" else f"dist/{name}")
        if name.endswith(".css"):  # the release less the fonts that no browser of today asks for
            text = re.sub(r',url\(fonts/[\w-]+\.(woff|ttf)\) format\("\w+"\)', "", published.read_text())
            assert (KATEX / name).read_text() == text
        else:
            assert digest(KATEX / name) == digest(published), name


def packages_of(text: str) -> dict[str, str]:
    return {
        found[1].lower().replace("_", "-"): found[2]
        for found in re.finditer(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.+-]+)", text, re.MULTILINE)
    }


def test_what_ci_installs_is_pinned_by_hash() -> None:
    entries = [entry for entry in re.split(r"\n(?=\S)", LOCK) if entry.strip() and not entry.startswith("#")]
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert "/opt/" not in LOCK


def test_the_lock_has_the_tested_versions_and_every_dependency() -> None:
    locked = packages_of(LOCK)
    tested = packages_of((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert {name: locked.get(name) for name in tested if name != "torch"} == {
        name: version for name, version in tested.items() if name != "torch"
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in ("curate", "hub", "train", "probe", "trl", "peft", "dev"):
        wanted += project["optional-dependencies"][extra]
    names = {re.match(r"[\w.-]+", one)[0].lower().replace("_", "-") for one in wanted}
    assert names - locked.keys() - {"torch", "reasoning-tracekit"} == set()


def test_workflows_install_by_the_lock_audit_on_a_schedule_and_publish_an_sbom() -> None:
    workflows = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert "install-locked" in workflows["ci"]
    assert "--require-hashes" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "cron:" in workflows["scheduled"]
    assert "requirements-ci.txt" in workflows["scheduled"]
    assert "pip-audit" in workflows["scheduled"]
    assert "cyclonedx-py" in workflows["release"]
    assert "attest" in workflows["release"]
