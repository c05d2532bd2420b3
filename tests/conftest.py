"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pofx_data() -> Path:
    """The folder of public data, or a skip that says how to name it."""
    folder = os.environ.get("POFX_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the public data: set POFX_DATA to their folder")
    return Path(folder)
