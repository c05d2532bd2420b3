"""Fixtures that several packages' tests share.

The collector of garbage leaves alone what imports and collecting have made, and looks less often at the rest: an eighth of the time.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


@pytest.fixture(scope="session")
def pofx_data() -> Path:
    """The folder of public data, or a skip that says how to name it."""
    folder = os.environ.get("POFX_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the public data: set POFX_DATA to their folder")
    return Path(folder)
