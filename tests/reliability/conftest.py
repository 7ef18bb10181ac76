"""Materials of the reliability tests, made once."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from tests.reliability.materials import make_materials


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `make_materials` filled."""
    return make_materials(tmp_path_factory.mktemp("reliability") / "materials")
