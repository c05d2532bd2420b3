"""``import pofx`` and ``pofx --help`` are cheap: nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pofx

HEAVY = ("torch", "scipy", "sklearn", "matplotlib", "pyarrow", "uproot", "h5py", "pandas")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["pofx", "pofx.cli", "pofx.artefact", "pofx.registry", "pofx.data.spec"])
def test_importing_needs_nothing_heavy(module: str) -> None:
    heavy = run(f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])")
    assert heavy.split() == []


def test_help_needs_nothing_heavy_and_is_quick() -> None:
    code = f"""
import sys, time
from pofx.cli import main
try:
    main(["--help"])
except SystemExit as leave:
    assert leave.code == 0, leave.code
print(time.process_time(), *[name for name in {HEAVY} if name in sys.modules])
"""
    seconds, *heavy = run(code).splitlines()[-1].split()
    assert heavy == []
    assert float(seconds) < 1.0  # of the processor: other work on the machine does not count


def test_every_public_name_exists_and_is_listed() -> None:
    assert set(pofx.__all__) == set(dir(pofx))
    for name in pofx.__all__:
        assert getattr(pofx, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = pofx.nonsense


def test_importing_changes_no_global_state() -> None:
    run(
        "import logging, warnings, sys, numpy\n"
        "before = (list(logging.root.handlers), list(warnings.filters), sys.excepthook)\n"
        "import pofx, pofx.cli\n"
        "assert before == (list(logging.root.handlers), list(warnings.filters), sys.excepthook)\n"
        "import torch\n"
        "threads, dtype, state = torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state()\n"
        "for name in pofx.__all__: getattr(pofx, name)\n"
        "assert (threads, dtype) == (torch.get_num_threads(), torch.get_default_dtype())\n"
        "assert torch.equal(state, torch.get_rng_state())"
    )
