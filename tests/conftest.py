"""Makes the tests' helpers importable and keeps compiled code in step with its sources."""

import sys
from pathlib import Path

V2G = Path(__file__).parents[1] / "envs" / "v2g"


def drop_stale_kernels() -> None:
    """Numba notices when a compiled file changes, but not the files that it compiles in."""
    changed = max((V2G / f"{name}.py").stat().st_mtime for name in ("arrays", "kernel", "projection", "model"))
    for compiled in (V2G / "__pycache__").glob("*.nb[ci]"):
        if compiled.stat().st_mtime < changed:
            compiled.unlink(missing_ok=True)


sys.path.insert(0, str(Path(__file__).parent))  # for worlds.py: importlib mode adds no path
drop_stale_kernels()
