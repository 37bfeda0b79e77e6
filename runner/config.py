"""One YAML file + ``key=value`` overrides -> one validated, frozen object, and back.

The schema is a frozen ``pydantic.dataclasses`` tree that the caller supplies; nothing here knows
what is being configured. Values are passed on as written: a relative path, in the file or in an
override, is relative to the current directory.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from qevgrid.envs.errors import UserError

Schema = TypeVar("Schema")
Tree = dict[Any, Any]

# Plain words that are not text, as in YAML 1.2: 1e-3 is a number; yes, 12:30, 2024-05-01 are not.
_PLAIN_WORDS = (
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """Safe loader with the plain words above, in which a repeated key is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads back equal; lists of values on one line, no anchors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    flat = not any(isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(list, _represent_list)
for _tag, _pattern, _first in _PLAIN_WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


PRESET = "preset"
"""Key that fills the others of its section."""

# --- reading -----------------------------------------------------------------------------------


def load_config(schema_type: type[Schema], path: str | Path, overrides: Sequence[str] = ()) -> Schema:
    """Read ``path``, apply the overrides, validate; every fault is one `UserError`.

    A ``preset=`` among the overrides sets what the file says no differently from its own preset.
    """
    tree = load_tree(path)
    for item in overrides:
        keys, value = _split_override(item)
        if keys[-1] == PRESET:
            tree = _without_preset(schema_type, tree, keys[:-1], str(path))
        tree = _with_value(tree, keys, value, item)
    return build(schema_type, tree, str(path))


def _without_preset(schema_type: type, tree: Tree, keys: list[str], source: str) -> Tree:
    """``tree`` without what its section at ``keys`` only repeats of its preset and the defaults."""
    section = _at(tree, keys)
    if not isinstance(section, dict):
        return tree
    bare = {key: section[key] for key in ("id", "kind", PRESET) if key in section}
    given, plain = (
        _at(TypeAdapter(schema_type).dump_python(build(schema_type, t, source), mode="json", round_trip=True), keys)
        for t in (tree, _with_value(tree, keys, bare, source))
    )
    return _with_value(tree, keys, bare | _different(section, given, plain), source)


def _at(tree: Any, keys: list[str]) -> Any:
    """What stands at ``keys``; None: nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _different(section: Tree, given: Any, plain: Any) -> Tree:
    """Entries of a section, and of sections in it, whose values differ."""
    found: Tree = {}
    for key, value in section.items():
        new, old = given.get(str(key)), plain.get(str(key))
        if isinstance(value, dict) and isinstance(new, dict) and isinstance(old, dict):
            found |= {key: inner} if (inner := _different(value, new, old)) else {}
        elif new != old:
            found[key] = value
    return found


def load_tree(path: str | Path, overrides: Sequence[str] = ()) -> Tree:
    """Read a YAML file as nested dicts and apply dotted ``a.b.c=value`` overrides."""
    tree = _parse(_read(Path(path)), str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {_shown(tree)}")
    for item in overrides:
        keys, value = _split_override(item)
        tree = _with_value(tree, keys, value, item)
    return tree


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = path.parent
        names = [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []
        hint = f"did you mean '{folder / near}'?" if (near := _near(path.name, names)) else ""
        raise UserError(f"{path}: no such file; {hint or 'pass a YAML file'}") from None
    except UnicodeDecodeError as err:
        raise UserError(f"{path}: not a text file in UTF-8 ({err.reason})") from None
    except OSError as err:
        raise UserError(f"{path}: cannot read it ({err.strerror}); pass a YAML file") from None


def _parse(text: str, source: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{source}: {where}{err.problem or err.context}") from None
    except (yaml.YAMLError, ValueError) as err:  # a forbidden character; a bad explicit !!int
        raise UserError(f"{source}: not valid YAML: {' '.join(str(err).split())}") from None


def _split_override(item: str) -> tuple[list[str], object]:
    key, equals, text = item.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"override {item!r}: expected key=value, e.g. seed=3 or agent.lr=1e-3")
    if not text.strip():
        raise UserError(f"override {item!r}: no value; {key}=null for none, {key}=\"''\" for ''")
    return keys, _parse(text, f"override {item!r}")


def _with_value(tree: object, keys: list[str], value: object, item: str) -> Tree:
    """Copy of ``tree`` with the value at ``keys``: YAML aliases share dicts, so never in place."""
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"override {item!r}: .{keys[0]} is inside {_shown(tree)}, not a section")
    section = dict(tree or {})
    key = next((known for known in section if str(known) == keys[0]), keys[0])
    if keys[1:]:
        value = _with_value(section.get(key), keys[1:], value, item)
    return section | {key: value}


# --- writing -----------------------------------------------------------------------------------


def dump(config: object) -> str:
    """YAML text of a configuration that `load_config` reads back equal, in the schema's order."""
    tree = TypeAdapter(type(config)).dump_python(config, mode="json", round_trip=True)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def inline_yaml(value: object) -> str:
    """YAML text of one value on one line, as it can stand behind ``key=`` in an override."""
    plain = TypeAdapter(Any).dump_python(value, mode="json", round_trip=True)
    text = yaml.dump(plain, Dumper=_Dumper, default_flow_style=True, width=1_000_000)
    return text.removesuffix("...\n").strip()


# --- comparing ---------------------------------------------------------------------------------


def changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ; of sections of two kinds only the key that tells them apart."""
    if type(old) is not type(new):
        return [prefix + (variants_of([type(old), type(new)])[0] or "type")]
    found = []
    for name in fields_of(type(old)):
        a, b = getattr(old, name), getattr(new, name)
        if is_section(type(a)) and is_section(type(b)):
            found += changed_keys(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(prefix + name)
    return found


# --- validating --------------------------------------------------------------------------------


def build(schema_type: type[Schema], tree: Mapping[Any, Any], source: str) -> Schema:
    """Validate ``tree``; a `UserError` headed by ``source`` lists every error at once."""
    try:
        return TypeAdapter(schema_type).validate_python(tree)
    except ValidationError as err:
        lines = _error_lines(schema_type, err)
    if len(lines) == 1:
        raise UserError(f"{source}: {lines[0]}")
    raise UserError(f"{source}:\n" + "\n".join(f"  {line}" for line in lines))


def _error_lines(schema_type: type, err: ValidationError) -> list[str]:
    """One line per place and value; what the members of a union said is joined by 'or'."""
    lines: dict[tuple[str, str], list[str]] = {}
    for error in err.errors(include_url=False):
        path, message, tail = _explain(schema_type, error)
        said = lines.setdefault((path, tail), [])
        if message not in said:
            said.append(message)
    return [f"{path}: {' or '.join(said)}{tail}" for (path, tail), said in lines.items()]


def _explain(schema_type: type, error: ErrorDetails) -> tuple[str, str, str]:
    """Return the dotted path, what is wrong, and the value with a hint."""
    path, owner, members = _locate(schema_type, error["loc"])
    kind, context, got = error["type"], error.get("ctx", {}), f" (got {_shown(error['input'])})"
    if kind == "missing":
        return path, "missing, and it has no default", ""
    if kind == "unexpected_keyword_argument":
        hint = _suggest(error["loc"][-1], list(fields_of(owner)))
        return path, "unknown key", f"{got}; {hint}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag, variants = variants_of(members)
        if kind == "union_tag_not_found":
            return f"{path}.{tag}", f"missing; choose one of: {', '.join(variants)}", ""
        hint = _suggest(context["tag"], list(variants))
        return f"{path}.{tag}", f"unknown {tag} {context['tag']!r}", f"; {hint}"
    if kind in ("dataclass_type", "model_attributes_type"):
        names = dict.fromkeys(name for member in members for name in fields_of(member))
        return path, "should be a section", f"{got}; its keys: {', '.join(names)}"
    if kind in ("value_error", "assertion_error"):
        return path, str(context["error"]), got
    message = error["msg"].replace("valid tuple", "list").replace("valid dictionary", "section")
    return path, message.removeprefix("Input "), got


def _locate(schema_type: type, loc: Sequence[int | str]) -> tuple[str, Any, list[Any]]:
    """Turn pydantic's location into (path as in the file, section it is in, types allowed there).

    Pydantic also puts the union member that it tried into the location; those parts are dropped.
    """
    path, owner, members = "", schema_type, [schema_type]
    for part in loc:
        if len(members) > 1:
            members = _pick(members, str(part))
        elif members and is_section(members[0]):
            owner, field = members[0], fields_of(members[0]).get(str(part))
            path += f".{part}"
            members = members_of(field.annotation) if field else []
        elif members and (item := item_types(members[0], part)):
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
            members = item
    return path.removeprefix(".") or "the file", owner, members


def _pick(members: list[Any], label: str) -> list[Any]:
    """Choose the union's member that pydantic calls ``label``: a tag, a class or ``tuple[...]``."""
    picked = variants_of(members)[1].get(label)
    named = [m for m in members if label.split("[")[0] == getattr(m, "__name__", None)]
    return [picked] if picked else named


def _suggest(word: object, known: list[str]) -> str:
    near = _near(str(word), known)
    return (f"did you mean {near!r}? " if near else "") + f"known: {', '.join(known)}"


def _near(word: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def _shown(value: object) -> str:
    text = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


# --- the schema, looked into -------------------------------------------------------------------


def is_section(annotation: object) -> bool:
    """Whether this is a pydantic dataclass."""
    return isinstance(annotation, type) and is_pydantic_dataclass(annotation)


def fields_of(section: object) -> dict[str, FieldInfo]:
    """Return a section's fields by name; none for anything else."""
    return dict(getattr(section, "__pydantic_fields__", {})) if is_section(section) else {}


def members_of(annotation: object) -> list[Any]:
    """Types that an annotation allows, without ``None`` and without ``Annotated``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(annotation) for member in members_of(part)]
    return [] if annotation is NoneType else [annotation]


def item_types(annotation: object, part: int | str) -> list[Any]:
    """Types allowed for one item of a tuple, list or dict; empty for anything else."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple and args[-1] is not ...:
        return members_of(args[int(part)])
    if origin in (tuple, list, set, frozenset):
        return members_of(args[0])
    return members_of(args[1]) if origin is dict and part != "[key]" else []


def variants_of(members: list[Any]) -> tuple[str, dict[str, Any]]:
    """Return the key that tells sections apart and the section behind each of its values."""
    sections = [member for member in members if is_section(member)]
    for name in fields_of(sections[0]) if sections else ():
        annotations = [field.annotation for s in sections if (field := fields_of(s).get(name))]
        if len(annotations) == len(sections) and all(get_origin(a) is Literal for a in annotations):
            pairs = zip(annotations, sections, strict=True)
            return name, {str(value): s for a, s in pairs for value in get_args(a)}
    return "", {}
