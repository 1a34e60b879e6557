"""Finding the instances of an idea: every module in a plural folder is looked at, nobody edits a list."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from compress_rec.errors import CompressRecError, nearest

T = TypeVar("T")
# what a number may be asked to be, as a refusal words it
RANGES: Mapping[str, Callable[[float], bool]] = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "finite and at least 0": lambda value: math.isfinite(value) and value >= 0,
    "finite and above 0": lambda value: math.isfinite(value) and value > 0,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "between 0 and 1": lambda value: 0 <= value <= 1,
}


class Registry(Generic[T]):
    """The concrete frozen dataclasses below ``base`` in the modules of ``package``, by their ``name``.

    ``name`` is the class attribute of that name; the folder's modules are imported on the first look-up.
    """

    def __init__(self, package: str, base: type[T], noun: str) -> None:
        self.package, self.base, self.noun = package, base, noun
        self._found: dict[str, type[T]] | None = None

    def classes(self) -> Mapping[str, type[T]]:
        """Return every class of the folder, sorted by name."""
        if self._found is None:
            folder = importlib.import_module(self.package)
            found: dict[str, type[T]] = {}
            for info in pkgutil.iter_modules(folder.__path__, folder.__name__ + "."):
                module = importlib.import_module(info.name)
                for cls in vars(module).values():
                    if inspect.isclass(cls) and issubclass(cls, self.base) and not inspect.isabstract(cls) and cls.__module__ == info.name:
                        found[cls.name] = cls  # type: ignore[attr-defined]
            self._found = dict(sorted(found.items()))
        return MappingProxyType(self._found)

    def find(self, name: str) -> type[T]:
        """Return the class called ``name``, or refuse with the nearest name."""
        classes = self.classes()
        if name not in classes:
            raise CompressRecError(f"there is no {self.noun} called '{name}'{nearest(name, classes)}")
        return classes[name]

    def build(self, spec: str | Mapping[str, Any] | T) -> T:
        """Make an instance from ``"name"``, ``"name@10"``, ``"name[a=b,c=d]"`` or ``{<noun> = "name", option = value, …}``."""
        if isinstance(spec, self.base):
            return spec
        if isinstance(spec, str):
            name, options = _parse(spec)
        elif isinstance(spec, Mapping):
            options = dict(spec)
            name = options.pop(self.noun, None)
            if not isinstance(name, str):
                raise CompressRecError(
                    f'a {self.noun} was given as {dict(spec)!r} without its name: write {{{self.noun} = "name", …}} or just "name"'
                )
        else:
            raise CompressRecError(f"a {self.noun} is a name or a table of options, but {spec!r} came")
        cls = self.find(name)
        return cls(**checked(options, cls, f"{self.noun} '{name}'"))

    def cards(self) -> Mapping[str, str]:
        """Return the first line of every class's docstring."""
        return {name: (inspect.getdoc(cls) or "").partition("\n")[0] for name, cls in self.classes().items()}


def label(instance: Any, name: str) -> str:
    """Return ``name@k[option=value,…]``: the options that differ from their defaults, ``k`` in front; ``build`` reads it back."""
    shown = []
    suffix = ""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if field.name == "k":
            suffix = f"@{value}"
        elif field.default is dataclasses.MISSING or value != field.default:
            shown.append(f"{field.name}={value}")
    return name + suffix + (f"[{','.join(shown)}]" if shown else "")


def fields_of(instance: Any) -> dict[str, Any]:
    """Return a dataclass's fields as plain JSON values."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    match = re.fullmatch(r"([a-z_0-9]+)(?:@(\d+))?(?:\[(.*)\])?", text.strip())
    if match is None:
        return text, {}
    name, k, rest = match.groups()
    options: dict[str, Any] = {} if k is None else {"k": int(k)}
    for part in (rest or "").split(","):
        if part:
            key, _, value = part.partition("=")
            options[key.strip()] = _value(value.strip())
    return name, options


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "True": True, "False": False, "None": None}.get(text, text)


def checked(options: Mapping[str, Any], cls: type, what: str) -> dict[str, Any]:
    """Return the options as keyword arguments of the dataclass ``cls``, or refuse an unknown, wrong or missing one of ``what``."""
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    done: dict[str, Any] = {}
    for key, value in options.items():
        if key not in names:
            raise CompressRecError(f"{what} has no option '{key}'{nearest(key, names) if names else '; it has none'}")
        if isinstance(value, list):
            value = tuple(value)
        if not _fits(value, hints[key]):
            raise CompressRecError(f"option '{key}' of {what} must be {_wanted(hints[key])}, but {value!r} came")
        done[key] = float(value) if hints[key] is float else value
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in done and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CompressRecError(f"{what} needs the option '{missing[0]}', which was not given")
    return done


def refuse_outside(instance: Any, what: str, wanted: Mapping[str, str]) -> None:
    """Refuse an option of ``what`` whose number lies outside what is wanted; wanted: field -> one of ``RANGES``."""
    for key, words in wanted.items():
        value = getattr(instance, key)
        if not RANGES[words](value):
            raise CompressRecError(f"option '{key}' of {what} must be {words}, but {value} came")


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is type(None):
        return value is None
    if hint is Any:
        return True
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple and get_args(hint)[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(one, get_args(hint)[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


def _wanted(hint: Any) -> str:
    """Return a type in words: ``int``, ``one of 'a' and 'b'``, ``int or nothing``, ``a list of int``."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        shown = [repr(part) for part in parts]
        return shown[0] if len(shown) == 1 else f"one of {', '.join(shown[:-1])} and {shown[-1]}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_wanted(part) for part in parts)
    if get_origin(hint) is tuple:
        return f"a list of {_wanted(parts[0])}"
    return "nothing" if hint is type(None) else str(getattr(hint, "__name__", hint))
