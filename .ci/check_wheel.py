"""Install the wheel into a fresh environment, borrow the dependencies of this one, and use it from elsewhere.

usage: .venv/bin/python .ci/check_wheel.py dist
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

CHECK = """
import importlib.metadata, pathlib, sys
import pofx
assert "torch" not in sys.modules, "import pofx imports torch"
home = pathlib.Path(pofx.__file__).parent
assert home.is_relative_to(sys.prefix), f"imported from {home}, not from the wheel"
assert (home / "py.typed").exists(), "py.typed is missing from the wheel"
about = importlib.metadata.metadata("pofx")
assert about["License-Expression"] == "BSD-3-Clause" and about["Requires-Python"], "metadata are incomplete"
print("wheel:", about["Name"], about["Version"], "imports from a fresh environment")
"""


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel alone; a path file lends it this environment's packages, after its own."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel.resolve())], check=True)
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def main(dist: str) -> None:
    """Check the one wheel in `dist`."""
    (wheel,) = Path(dist).glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        python = install(wheel, Path(folder))
        subprocess.run([python, "-c", CHECK], check=True, cwd=folder)
        subprocess.run([python.parent / "pofx", "--help"], check=True, cwd=folder, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(sys.argv[1])
