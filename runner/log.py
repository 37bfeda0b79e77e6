"""What a run shows in TensorBoard, on `torch.utils.tensorboard.SummaryWriter`; x axis = env steps.

Torch and TensorBoard take seconds to import, so they are imported inside the functions.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qevgrid.envs.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch.utils.tensorboard import SummaryWriter

Layout = dict[str, dict[str, list[Any]]]
Scalars = dict[str, tuple["NDArray[np.int64]", "NDArray[np.float64]"]]

# Category -> the tags it collects: whole ones, or prefixes ending in '/'.
_CATEGORIES: dict[str, tuple[str, ...]] = {
    "score and cost": ("eval/score", "eval/cost_usd"),
    "cost parts": ("cost/",),
    "learning": ("rollout/ep_rew_mean", "train/"),
    "operation": ("kpi/",),
    "action step": ("qubo/",),
    "circuit": ("vqc/",),
}


def add_config(writer: "SummaryWriter", text: str) -> None:
    """Show the configuration's YAML text as a code block under ``config/yaml``."""
    writer.add_text("config/yaml", f"```yaml\n{text.rstrip()}\n```")


def add_hparams(
    writer: "SummaryWriter",
    hparams: Mapping[str, Any],
    metrics: Mapping[str, float],
    step: int | None = None,
) -> None:
    """Register this run in the HPARAMS tab, in the run's own folder.

    ``hparams`` may be nested: names are dotted. The tab finds each metric by its scalar tag; with
    ``step`` the values are logged there too, without it the tags must be logged elsewhere.
    """
    from torch.utils.tensorboard.summary import hparams as summaries

    if not metrics:
        raise ValueError("metrics must not be empty: the HPARAMS tab would show nothing")
    # Of the three summaries the first lists the columns. TensorBoard takes that list from one run
    # only and hides what another agent has besides; without it, all runs' columns are merged.
    _, start, end = summaries(_hparam_values(hparams), dict(metrics))
    for summary in (start, end):
        writer._get_file_writer().add_summary(summary)
    if step is not None:
        add_scalars_flat(writer, metrics, step)


def _hparam_values(hparams: Mapping[str, Any]) -> dict[str, float | str]:
    """Flatten to numbers and text, all that the tab can tell apart."""
    values: dict[str, float | str] = {}
    for name, value in _flatten(hparams, "."):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        plain = value if isinstance(value, str) else json.dumps(value, default=str)
        values[name] = float(value) if number else plain
    return values


def _flatten(tree: Mapping[str, Any], separator: str) -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from ((name + separator + rest, v) for rest, v in _flatten(value, separator))
        else:
            yield name, value


def comparison_layout(tags: Iterable[str]) -> Layout:
    """Sort the tags that are logged into the CUSTOM SCALARS page that compares runs.

    A chart holds one tag, so each line in it is a run: an agent, a rival, the optimum.
    """
    known, layout = sorted(set(tags)), Layout()
    for category, wanted in _CATEGORIES.items():
        ranks = {tag: rank for tag in known if (rank := _rank(tag, wanted)) is not None}
        if ranks:
            ordered = sorted(ranks, key=ranks.__getitem__)
            layout[category] = {tag: ["Multiline", [tag]] for tag in ordered}
    return layout


def _rank(tag: str, wanted: Sequence[str]) -> int | None:
    """Position of the first wanted entry that is this tag or its prefix; None without one."""
    hits = (i for i, w in enumerate(wanted) if tag == w or (w.endswith("/") and tag.startswith(w)))
    return next(hits, None)


def add_layout(writer: "SummaryWriter", layout: Layout) -> None:
    """Write a CUSTOM SCALARS layout, once per writer; layouts of several runs are merged.

    TensorBoard reads a chart's tags as patterns for the beginning; here they mean just themselves.
    """
    exact = {
        category: {
            title: [kind, [re.escape(tag) + "$" for tag in tags] if kind == "Multiline" else tags]
            for title, (kind, tags) in charts.items()
        }
        for category, charts in layout.items()
    }
    writer.add_custom_scalars(exact)


def add_figure(writer: "SummaryWriter", tag: str, figure: "Figure", step: int) -> None:
    """Show a matplotlib figure as an image, without pyplot, which the writer's own method loads."""
    writer.add_image(tag, figure_to_rgb(figure), step, dataformats="HWC")


def figure_to_rgb(figure: "Figure") -> "NDArray[np.uint8]":
    """Draw a figure into an array of shape (height, width, 3); its canvas stays as it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before = figure.canvas
    canvas = FigureCanvasAgg(figure)
    try:
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    finally:
        figure.set_canvas(before)


def add_scalars_flat(writer: "SummaryWriter", mapping: Mapping[str, Any], step: int) -> None:
    """Log ``{tag: value}`` at one step; nested mappings join their names by '/', None is left out.

    Unlike `SummaryWriter.add_scalars`, which opens a sub-folder per line.
    """
    for tag, value in _flatten(mapping, "/"):
        if value is not None:
            writer.add_scalar(tag, float(value), step)


def flat_line(writer: "SummaryWriter", tag: str, value: float, steps: Sequence[int]) -> None:
    """Draw a rival that does not learn as a horizontal line over the learner's ``steps``.

    The writer must be the rival's own, on a folder beside the run's: then both share the chart.
    """
    if len(steps) == 0:
        raise ValueError("steps must not be empty: a line needs an x axis")
    for step in steps:
        writer.add_scalar(tag, float(value), int(step))


def read_scalars(folder: str | Path) -> Scalars:
    """Read back every scalar of one run folder by step: ``{tag: (steps, values)}``, nothing thinned out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(Path(folder).glob("events.out.tfevents.*")):
        raise UserError(f"{folder}: no TensorBoard event files; pass the folder of a run")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    scalars: Scalars = {}
    for tag in events.Tags()["scalars"]:
        points = sorted(events.Scalars(tag), key=lambda point: point.step)  # files come in order of name
        steps = np.array([point.step for point in points], dtype=np.int64)
        scalars[tag] = steps, np.array([point.value for point in points], dtype=np.float64)
    return scalars
