"""A tree of invented records of the smoke profile, for tests of what is made of records."""

import shutil
from pathlib import Path

import pytest

from benchmark.records.profile import Profile
from tests.conftest import ROOT
from tests.synthetic import write_tree

SMOKE = ROOT / "profiles/smoke.yaml"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("written"), Profile.read(SMOKE))


@pytest.fixture
def root(written, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written, tmp_path / "results"))
