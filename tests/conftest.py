"""Makes the tests' helpers importable and keeps compiled code in step with its sources."""

import sys
from pathlib import Path

V2G = Path(__file__).parents[1] / "envs" / "v2g"


def drop_stale_kernels() -> None:
    """Numba notices a change of ``kernel.py``, but not of ``model.py``, which it compiles in."""
    changed = (V2G / "model.py").stat().st_mtime
    for compiled in (V2G / "__pycache__").glob("kernel.*.nb[ci]"):
        if compiled.stat().st_mtime < changed:
            compiled.unlink(missing_ok=True)


sys.path.insert(0, str(Path(__file__).parent))  # for worlds.py: importlib mode adds no path
drop_stale_kernels()
