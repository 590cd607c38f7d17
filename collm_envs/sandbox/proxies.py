"""Stand-ins for an untrusted program's functions, classes and objects, where its tests run.

For `judge`. A stand-in asks the program's process over a socket and gets plain values or more stand-ins. What
comes back is hostile: it is decoded strictly, exceptions are of known classes, and a stand-in never equals a
plain value, so that an object made to equal everything equals nothing here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collm_envs.sandbox.serve import BINARY

if TYPE_CHECKING:
    from collm_envs.sandbox.link import Link


_ORDER = {"__lt__", "__le__", "__gt__", "__ge__", "__contains__"}
_ARITHMETIC = {f"__{prefix}{name}__" for name in BINARY for prefix in ("", "r")}
_LOCAL_ATTRIBUTES = frozenset(
    {"__traceback__", "__context__", "__cause__", "__suppress_context__", "__notes__", "__class__", "args"}
)
_set_local = object.__setattr__


class Function:
    """A function of the program, or anything else of it that is only called."""

    __slots__ = ("__name__", "_link", "_number")

    def __init__(self, link: Link, number: int, name: str) -> None:
        self._link, self._number = link, number
        self.__name__ = name

    @property
    def _collm_number(self) -> int:
        """Its number in the program's process."""
        return self._number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in the program's process."""
        return self._link.request("call", (self._number,), (args, tuple(kwargs.items())))

    def __getattr__(self, name: str) -> Any:
        return self._link.request("get", (self._number, name))

    def __repr__(self) -> str:
        return f"<function {self.__name__} of the program>"


class Method:
    """A method of one object of the program."""

    __slots__ = ("__name__", "__self__")

    def __init__(self, owner: Any, name: str) -> None:
        self.__self__ = owner
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in the program's process, by its name."""
        owner = self.__self__
        fixed = (owner._collm_number, self.__name__)
        return type(owner)._collm_link.request("method", fixed, (args, tuple(kwargs.items())))

    def resolve(self) -> Any:
        """What the name means now in the program: a function of its own, or what a test put there."""
        owner = self.__self__
        return type(owner)._collm_link.request("get", (owner._collm_number, self.__name__))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.resolve(), name)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Method) and self.__self__ is other.__self__
        return same and self.__name__ == getattr(other, "__name__", None)

    def __hash__(self) -> int:
        return hash((id(self.__self__), self.__name__))


class Mirror(type):
    """Type of the classes that stand for the program's."""

    _collm_link: Link
    _collm_number: int
    _collm_methods: frozenset[str]
    _collm_content: bool

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object in the program's process."""
        return cls._collm_link.request("call", (cls._collm_number,), (args, tuple(kwargs.items())))

    def __getattr__(cls, name: str) -> Any:
        return cls._collm_link.request("get", (cls._collm_number, name))

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__") and name.endswith("__"):
            type.__setattr__(cls, name, value)
        else:
            cls._collm_link.request("set", (cls._collm_number, name), (value,))

    def __delattr__(cls, name: str) -> None:
        cls._collm_link.request("delete", (cls._collm_number, name))

    def __iter__(cls) -> Any:
        return cls._apply("__iter__")

    def __len__(cls) -> int:
        length: int = cls._apply("__len__")
        return length

    def __getitem__(cls, key: Any) -> Any:
        return cls._apply("__getitem__", key)

    def __contains__(cls, item: Any) -> bool:
        return isinstance(type(item), Mirror) and bool(cls._apply("__contains__", item))

    def __bool__(cls) -> bool:
        return True

    def __dir__(cls) -> list[str]:
        names: list[str] = cls._collm_link.request("dir", (cls._collm_number,))
        return names

    def _apply(cls, name: str, *args: Any) -> Any:
        return cls._collm_link.request("apply", (name, cls._collm_number), (args,))


class Instance:
    """Base of the classes that stand for the program's; their objects stand for its objects."""

    _collm_link: Link
    _collm_number: int
    _collm_methods: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        cls = type(self)
        if name in cls._collm_methods and name not in cls._collm_link.shadowed.get(self._collm_number, ()):
            return Method(self, name)
        return cls._collm_link.request("get", (self._collm_number, name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LOCAL_ATTRIBUTES:
            _set_local(self, name, value)
            return
        link = self._collm_link
        if name in self._collm_methods:
            link.shadowed.setdefault(self._collm_number, set()).add(name)
        link.request("set", (self._collm_number, name), (value,))

    def __delattr__(self, name: str) -> None:
        self._collm_link.request("delete", (self._collm_number, name))

    def __dir__(self) -> list[str]:
        names: list[str] = self._collm_link.request("dir", (self._collm_number,))
        return names

    def __repr__(self) -> str:
        return str(_apply(self, "__repr__"))

    def __str__(self) -> str:
        return str(_apply(self, "__str__"))

    def __copy__(self) -> Any:
        return _apply(self, "__copy__")

    def __deepcopy__(self, memo: Any) -> Any:
        return _apply(self, "__deepcopy__")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return self._collm_link.request("get", (self._collm_number, "__dict__"))


def _apply(self: Any, name: str, *args: Any) -> Any:
    return type(self)._collm_link.request("apply", (name, self._collm_number), (args,))


def _content(self: Any) -> Any:
    """The plain value that an object holds whose class derives from a builtin type."""
    value = type(self)._collm_link.request("content", (self._collm_number,))
    if isinstance(type(value), Mirror):
        raise OverflowError("a value of the program's is too large to look at")
    return value


def _plain_special(name: str) -> Callable[..., Any]:
    return lambda self, *args: _apply(self, name, *args)


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    return type(self)._collm_link.request("call", (self._collm_number,), (args, tuple(kwargs.items())))


def _with_other(name: str) -> Callable[[Any, Any], Any]:
    """An operation with another operand, which must not tell the program what a test expects.

    `f(2) - 4` would hand the expected 4 to an object that the program returned in place of a number. A plain
    operand goes there only where the tests' source itself does arithmetic with objects of that class.
    """
    swapped = name.startswith("__r") and name != "__rshift__"
    function = getattr(operator, name.replace("__r", "__", 1) if swapped else name)

    def operate(self: Any, other: Any) -> Any:
        cls = type(self)
        if isinstance(type(other), Mirror) or cls.__name__ in cls._collm_link.operators:
            return _apply(self, name, other)
        if cls._collm_content:
            mine = _content(self)
            return function(other, mine) if swapped else function(mine, other)
        if name == "__contains__":
            raise TypeError(f"argument of type '{cls.__name__}' is not iterable")
        return NotImplemented

    return operate


def _equal(self: Any, other: Any) -> Any:
    if isinstance(type(other), Mirror):
        return self is other or _apply(self, "__eq__", other) is True
    if type(self)._collm_content:
        return _content(self) == other
    return NotImplemented


def _unequal(self: Any, other: Any) -> Any:
    same = _equal(self, other)
    return same if same is NotImplemented else not same


def _enter(self: Any) -> Any:
    return Method(self, "__enter__")()


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> bool:
    """Leave the program's context manager; it cannot swallow an exception, since that may be a failed test."""
    known = isinstance(kind, type) and kind.__module__ == "builtins"
    Method(self, "__exit__")(kind if known else error and Exception, error and Exception("raised"), None)
    return False


def _special(name: str) -> Callable[..., Any]:
    if name in _ARITHMETIC or name in _ORDER:
        return _with_other(name)
    own: dict[str, Callable[..., Any]] = {
        "__eq__": _equal,
        "__ne__": _unequal,
        "__call__": _call,
        "__enter__": _enter,
    }
    return own.get(name) or _plain_special(name)


def _hash_of(content: bool, hashable: bool, specials: set[str]) -> Any:
    if not hashable:
        return None
    if content:
        return lambda self: hash(_content(self))
    return _plain_special("__hash__") if {"__hash__", "__eq__"} <= specials else object.__hash__


def make_class(name: str, bases: tuple[type, ...], specials: set[str], traits: dict[str, Any]) -> Mirror:
    """A class that stands for one of the program's.

    Args:
        name: its name.
        bases: stand-ins of its bases, and exception classes.
        specials: special methods that it has.
        traits: `link`, `number`, `methods` (names), `content` (whether it derives from a builtin type of plain
            values), `hashable`.
    """
    space: dict[str, Any] = {special: _special(special) for special in specials}
    if "__enter__" in specials:
        space["__exit__"] = _exit
    space["__hash__"] = _hash_of(traits["content"], traits["hashable"], specials)
    space |= {f"_collm_{trait}": value for trait, value in traits.items()}
    space["__module__"] = "solution"
    if not any(issubclass(base, Instance) for base in bases):
        bases = (Instance, *bases)
    try:
        return Mirror(name, bases, space)
    except TypeError:  # bases that do not go together, of which one at least is not what it says
        raised = (Exception,) if any(issubclass(base, BaseException) for base in bases) else ()
        return Mirror(name, (Instance, *raised), space)
