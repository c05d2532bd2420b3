"""Tests that share fitted models go to one worker, which fits them once: those of a family in the contract, and those of a file.

Every test begins with the same state of torch's generator, which bodies built outside of ``fit`` take their weights from.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            name = getattr(getattr(item, "callspec", None), "params", {}).get("name")
            shared = name if item.path.name == "test_contract.py" and name is not None else item.path.stem
            item.add_marker(pytest.mark.xdist_group(str(shared)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    torch.manual_seed(1)
