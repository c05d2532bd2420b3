"""What an event is, and how data come in and go out: readers, writers, splits, larger-than-memory streaming.

Importing this package costs numpy only; the libraries of the file formats are imported when a file of theirs is read.
"""

from __future__ import annotations

from pofx.data.dataset import Dataset, as_dataset, check_trainable
from pofx.data.events import Events
from pofx.data.hepdata import hepdata_release, read_hepdata, write_hepdata
from pofx.data.info import Info, describe
from pofx.data.options import ReadOptions
from pofx.data.reading import read
from pofx.data.release import Histogram, Release, read_histogram, read_matrix, read_release
from pofx.data.spec import Axis, Column, EventSpec, Field, parse_column, spec_from_dict, spec_to_dict, vector_spec
from pofx.data.stream import concat
from pofx.data.writing import write

__all__ = [
    "Axis", "Column", "Dataset", "EventSpec", "Events", "Field", "Histogram", "Info", "ReadOptions", "Release", "as_dataset",
    "check_trainable", "concat", "describe", "hepdata_release", "parse_column", "read", "read_hepdata", "read_histogram", "read_matrix",
    "read_release", "spec_from_dict", "spec_to_dict", "vector_spec", "write", "write_hepdata",
]  # fmt: skip
