"""Parameters from keyword arguments, with errors that name the key and the nearest known one."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from qevgrid.envs.errors import UserError

Params = TypeVar("Params")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of every section of parameters: no unknown key, no infinity."""


def build(kind: type[Params], base: Params | None, changes: Mapping[str, Any]) -> Params:
    """``base`` (or the defaults) with some keys changed; a mapping changes a section's keys."""
    try:
        return kind(**_merged(base, changes))
    except ValidationError as err:
        lines = dict.fromkeys(_line(kind, e) for e in err.errors(include_url=False))
    raise UserError("; ".join(lines))


def _merged(base: object, changes: Mapping[str, Any]) -> dict[str, Any]:
    if base is None:
        return dict(changes)
    merged = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    for key, value in changes.items():
        section = merged.get(key)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(section):
            value = _merged(section, value)
        merged[key] = value
    return merged


def _line(kind: type, err: ErrorDetails) -> str:
    """Key, value, what is wrong with it."""
    if isinstance(inner := err.get("ctx", {}).get("error"), UserError):
        return str(inner)
    parts = map(str, err["loc"])  # pydantic adds the types it tried, such as "tuple[int, ...]"
    path = ".".join(part for part in parts if part.isidentifier() or part.isdigit())
    value = repr(err["input"])
    shown = f"{path}={value if len(value) <= 60 else value[:57] + '...'}"
    if err["type"] == "unexpected_keyword_argument":
        return f"{shown}: unknown key; {_nearest(kind, err['loc'])}"
    return f"{shown}: {err['msg'].removeprefix('Input ').replace('valid tuple', 'list')}"


def _nearest(kind: Any, loc: tuple[int | str, ...]) -> str:
    """Hint at the key that was meant, or all keys of the section."""
    for part in loc[:-1]:
        kind = next((f.type for f in dataclasses.fields(kind) if f.name == part), kind)
    known = [f.name for f in dataclasses.fields(kind)]
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
