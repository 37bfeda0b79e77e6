"""What the benchmarks share: one core, Markdown tables, where the numbers come from."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def use_one_core() -> None:
    """Keep this process and its children on one core and, where that is not possible, one thread."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def machine(*packages: str) -> str:
    """One line: processor, load, versions."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{processor()}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, {versions}"


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def median(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Median of each key over several measurements."""
    found = list(rows)
    return {key: statistics.median(row[key] for row in found) for key in found[0]}


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    cells = [[str(x) for x in row] for row in rows]
    width = [max(2, *(len(row[k]) for row in [list(header), *cells])) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, width, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(text.rjust(w) for text, w in others)])} |"

    rule = [":" + "-" * (width[0] - 1), *("-" * (w - 1) + ":" for w in width[1:])]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, cells)])


def number(x: float | None, digits: int = 0) -> str:
    """A number for people; a dash where there is none."""
    return "–" if x is None else f"{x:,.{digits}f}"


def verdict(measured: float, target: float, *, least: bool) -> str:
    """Whether a target is met, ``least`` being one to exceed."""
    return "yes" if (measured >= target if least else measured < target) else "NO"


def write_json(path: Path | None, content: Any) -> None:
    """Keep the raw numbers, if the command line asked for them."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"\nwritten: {path}")
