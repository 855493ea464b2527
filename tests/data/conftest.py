"""The lecture's list, where somebody has a copy."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def makemore_names() -> Path:
    """Path of the lecture's names.txt; the test is skipped where there is no copy."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "makemore_names.txt"
    path = Path(os.environ.get("BNLM_MAKEMORE_NAMES", default))
    if not path.is_file():
        pytest.skip("no copy of the lecture's list; set BNLM_MAKEMORE_NAMES to one")
    return path
