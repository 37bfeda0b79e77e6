"""What train.py and evaluate.py share on the command line: arguments, errors, bars, tables."""

import argparse
import difflib
import math
import numbers
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from qevgrid.envs.errors import UserError
from qevgrid.runner.config import fields_of, inline_yaml, is_section, members_of, variants_of

if TYPE_CHECKING:
    from tqdm import tqdm

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
Row = tuple[str, str, str, str]
_HELP_COLUMNS: tuple[str, ...] = ("key", "type", "default", "description")
_LIMITS = {
    "gt": "> {}",
    "ge": ">= {}",
    "lt": "< {}",
    "le": "<= {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
}
_WIDEST = 44
_PLAIN_NAMES = {NoneType: "null", str: "text", Path: "path", Any: "any", bool: "true | false"}

# --- running -----------------------------------------------------------------------------------


def run_cli(main_function: Callable[[], int | None]) -> int:
    """Call the program and return its exit code; what the user did wrong prints as one message.

    A program that was stopped and saved its work re-raises ``KeyboardInterrupt("saved ...;
    resume with ...")``: that text is printed.
    """
    try:
        return main_function() or 0
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt as err:
        print(f"\ninterrupted: {str(err) or 'nothing more was saved'}", file=sys.stderr)
        return EXIT_INTERRUPTED


# --- arguments ---------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors name the remedy. Options cannot be shortened."""

    def __init__(self, **keywords: Any) -> None:
        keywords.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """Print usage, the error and what to do; exit with 2."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USER_ERROR, f"error: {message}; {self._remedy(message)}\n")

    def _remedy(self, message: str) -> str:
        words = message.removeprefix("unrecognized arguments: ").split()
        option = words[0].partition("=")[0] if words else ""
        near = difflib.get_close_matches(option, list(self._option_string_actions), n=1)
        if "unrecognized arguments" in message and option.startswith("-"):
            if near:
                return f"did you mean {near[0]}?"
            if "." in option or "=" in words[0]:
                return f"a setting is written without dashes: {option.lstrip('-')}=VALUE"
        return f"see {self.prog} --help"


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add ``overrides``: any number of ``key=value``."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="setting that replaces the file's, e.g. agent.lr=1e-3",
    )


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add ``names``: run folders, agent names and ``key=value`` mixed; see `split_names`."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="RUN|AGENT|key=value",
        help="run folder or agent name to compare, or a setting such as env.reward_scale=1",
    )


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse with positionals allowed before, between and after the options."""
    return parser.parse_intermixed_args(argv)


def is_override(text: str) -> bool:
    """Whether ``text`` is ``key=value``: an '=' before any path separator."""
    head = re.split(r"[/\\]" if os.sep == "\\" else "/", text, maxsplit=1)[0]
    return "=" in head


def split_names(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split mixed positionals into (agent names and run folders, overrides)."""
    names = [item for item in items if not is_override(item)]
    return names, [item for item in items if is_override(item)]


# --- output ------------------------------------------------------------------------------------


def progress(total: int, desc: str, unit: str = "step") -> "tqdm[NoReturn]":
    """Progress bar on stderr (``update(n)``, context manager); silent when not a terminal."""
    from tqdm import tqdm

    silent = not sys.stderr.isatty()
    return tqdm(total=total, desc=desc, unit=unit, unit_scale=True, disable=silent, dynamic_ncols=True)


def format_table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str] | Mapping[str, str], widest: int | None = None
) -> str:
    """Align rows under ``columns`` (keys, or key -> heading); numbers right, nothing as '-'.

    A longer cell than ``widest`` pushes the rest of its own line only.
    """
    headings = columns if isinstance(columns, Mapping) else {key: key for key in columns}
    blocks = [_format_column(heading, [r.get(k) for r in rows], widest) for k, heading in headings.items()]
    return "\n".join("  ".join(line).rstrip() for line in zip(*blocks, strict=True))


def _format_column(heading: str, values: list[object], widest: int | None) -> list[str]:
    known = [value for value in values if value is not None]
    numeric = bool(known) and all(_is_number(value) for value in known)
    digits = _decimals(known) if numeric else 0
    cells = ["-" if value is None else _cell(value, digits) for value in values]
    width = min(max(map(len, [heading, *cells])), widest or sys.maxsize)
    rule = "-" * width
    align = str.rjust if numeric else str.ljust
    return [align(heading, width), rule, *(align(cell, width) for cell in cells)]


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _decimals(values: list[Any]) -> int:
    """Decimals that leave about four digits to the column's largest value."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 3 if largest == 0 else min(max(3 - math.floor(math.log10(largest)), 0), 6)


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, numbers.Integral) or not _is_number(value):
        return str(value)
    return f"{value:.{decimals}f}"


# --- the configuration's keys ------------------------------------------------------------------


def describe(schema_type: type) -> str:
    """Text table of every key of a configuration: type, default, description."""
    rows = _section_rows(schema_type, "")
    return format_table([dict(zip(_HELP_COLUMNS, row, strict=True)) for row in rows], _HELP_COLUMNS, _WIDEST)


def _section_rows(section: type, prefix: str, default: object = None) -> Iterator[Row]:
    """Rows of a section; a default section's own values take the place of the class's."""
    for name, field in fields_of(section).items():
        value = getattr(default, name) if isinstance(default, section) else _default(field)
        yield from _field_rows(prefix + name, field, value)


def _field_rows(key: str, field: FieldInfo, default: object) -> Iterator[Row]:
    many = [m for m in members_of(field.annotation) if get_origin(m) in (tuple, list)]
    inner = members_of(get_args(many[0])[0]) if many else members_of(field.annotation)
    sections = [member for member in inner if is_section(member)]
    if not sections:
        yield key, _type_text(field.annotation, field.metadata), _value(default), _doc(field)
        return
    kind = "list of sections" if many else "section"
    shown = "" if is_section(type(default)) else _value(default)
    yield key, kind, shown, _doc(field)
    prefix = f"{key}[]." if many else f"{key}."
    tag, variants = variants_of(sections) if len(sections) > 1 else ("", {})
    for name, section in (variants or {s.__name__: s for s in sections}).items():
        if tag:
            yield f"{prefix}{tag}={name}", "", "", _class_doc(section)
        rows = _section_rows(section, prefix, default)
        yield from (row for row in rows if not tag or row[0] != prefix + tag)


def _type_text(annotation: object, metadata: Sequence[object] = ()) -> str:
    """Name a type for people: ``int > 0``, ``list of float``, ``a | b``, ``text``."""
    limits = _limits(metadata)
    return _type_name(annotation) + (f" {', '.join(limits)}" if limits else "")


def _type_name(annotation: object) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(args[0], args[1:])
    if origin in (Union, UnionType):
        return " | ".join(_type_text(arg) for arg in args)
    if origin is Literal:
        return " | ".join(inline_yaml(arg) for arg in args)
    if origin is dict:
        return f"map of {_type_text(args[0])} to {_type_text(args[1])}"
    if origin is tuple and args[-1] is not ...:
        return f"[{', '.join(_type_text(arg) for arg in args)}]"
    if origin in (tuple, list, set, frozenset):
        return f"list of {_type_text(args[0])}"
    return next((text for kind, text in _PLAIN_NAMES.items() if annotation is kind), None) or str(
        getattr(annotation, "__name__", annotation)
    )


def _limits(metadata: Sequence[object]) -> list[str]:
    limits = [m for item in metadata for m in getattr(item, "metadata", (item,))]
    return [
        words.format(bound)
        for limit in limits
        for name, words in _LIMITS.items()
        if (bound := getattr(limit, name, None)) is not None
    ]


def _default(field: FieldInfo) -> object:
    """Return the default of a field, `PydanticUndefined` where there is none."""
    if field.default_factory is None or field.default_factory_takes_validated_data:
        return field.default
    return field.get_default(call_default_factory=True)


def _value(default: object) -> str:
    return "required" if default is PydanticUndefined else inline_yaml(default)


def _doc(field: FieldInfo) -> str:
    """Return the field's description: ``Field(description=)``, or a text or Doc in Annotated."""
    texts = (getattr(item, "documentation", item) for item in field.metadata)
    return field.description or next((text for text in texts if isinstance(text, str)), "")


def _class_doc(section: type) -> str:
    return (section.__doc__ or "").strip().partition("\n")[0]
