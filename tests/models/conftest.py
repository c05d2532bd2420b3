"""Tests of one family go to one worker, which fits the family's models once."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = getattr(getattr(item, "callspec", None), "params", {}).get("name")
        if item.path.name == "test_contract.py" and name is not None:
            item.add_marker(pytest.mark.xdist_group(str(name)))
