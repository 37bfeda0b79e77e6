"""Makes the tests' helpers importable and keeps compiled code in step with its sources."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = {
    "envs/v2g": ("arrays", "kernel", "projection", "model"),
    "agents/hybrid": (
        "anneal",
        "ascent",
        "dual",
        "lattice",
        "lowrank",
        "plans",
        "polish",
        "refine",
        "recourse",
        "sampler_dimod",
    ),
}
"""Compiled files by folder; those of a folder compile each other in."""


def drop_stale_kernels() -> None:
    """Numba notices when a compiled file changes, but not the files that it compiles in."""
    for folder, names in KERNELS.items():
        changed = max((ROOT / folder / f"{name}.py").stat().st_mtime for name in names)
        for compiled in (ROOT / folder / "__pycache__").glob("*.nb[ci]"):
            if compiled.stat().st_mtime < changed:
                compiled.unlink(missing_ok=True)


sys.path.insert(0, str(Path(__file__).parent))  # for worlds.py: importlib mode adds no path
drop_stale_kernels()
