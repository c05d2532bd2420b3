"""What an event is, and how data come in and go out: readers, writers, splits, larger-than-memory streaming."""

from __future__ import annotations

from pofx.data.dataset import Dataset, as_dataset, check_trainable
from pofx.data.events import Events
from pofx.data.spec import Axis, Column, EventSpec, Field, parse_column, spec_from_dict, spec_to_dict, vector_spec

__all__ = [
    "Axis", "Column", "Dataset", "EventSpec", "Events", "Field", "as_dataset", "check_trainable", "parse_column",
    "spec_from_dict", "spec_to_dict", "vector_spec",
]  # fmt: skip
