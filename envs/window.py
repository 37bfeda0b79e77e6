"""A window that shows frames one after another, for ``render_mode="human"``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.errors import UserError


class Window:
    """Opens with the first frame. Needs a display and an interactive Matplotlib backend."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._figure: Any = None
        self._image: Any = None

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Draw one frame and let the window answer to the user."""
        if self._figure is None:
            self._figure, self._image = self._open(frame)
        self._image.set_data(frame)
        self._figure.canvas.draw_idle()
        self._figure.canvas.start_event_loop(0.001)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._figure is not None:
            from matplotlib import pyplot

            pyplot.close(self._figure)
            self._figure = self._image = None

    def _open(self, frame: NDArray[np.uint8]) -> tuple[Any, Any]:
        """A figure on the screen, and the image that fills it."""
        pyplot = _interactive_pyplot()
        height, width = frame.shape[:2]
        figure: Any = pyplot.figure(self._title, figsize=(width / 100, height / 100), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        image = axes.imshow(frame)
        figure.show()
        return figure, image

    def __getstate__(self) -> dict[str, Any]:
        return {"_title": self._title, "_figure": None, "_image": None}


def _interactive_pyplot() -> Any:
    """pyplot with a backend that can open windows; ``UserError`` where there is none."""
    from matplotlib import get_backend, pyplot
    from matplotlib.backends.registry import BackendFilter, backend_registry

    backend = get_backend()
    windowed = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    if backend.lower() not in map(str.lower, windowed):
        raise UserError(
            f"render_mode='human' needs a display, and Matplotlib's backend {backend!r} opens no "
            "windows; use render_mode='rgb_array', or install PyQt6 or tk on a desktop"
        )
    return pyplot
