"""Strict tagged JSON for plain Python values that cross a process border.

For every process of the sandbox. Encoding runs beside the untrusted program and is generous: subclasses of
builtin types go by their content. Decoding runs in trusted processes and is total: it gives plain values of exact
types or `CodecError`, whatever it is fed. It never imports, never calls what it was sent, and compares nothing
that has methods of the program's making.
"""

from __future__ import annotations

import base64
import binascii
import builtins
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

MAX_DEPTH = 64
MAX_NODES = 400_000  # values in one message
MAX_INT_HEX = 1 << 16  # hex digits
MAX_DECIMAL = 1000  # characters, and the largest exponent
MAX_RANGE = 1_000_000  # members; a longer one could be listed by a test
_PLAIN_INT = 1 << 63  # smaller ones travel as JSON numbers
MAX_SAME_HASH = 128  # keys of one dict or set that may share a hash value; {2**k for k < 5000} has 82

#: Classes that may be named in a message: `{"age": int}` is data in many tests.
BUILTIN_CLASSES: dict[str, type] = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and not name.startswith("_")
}
_CLASS_NAMES = {value: name for name, value in reversed(BUILTIN_CLASSES.items())}


class CodecError(ValueError):
    """No plain value, or not the encoding of one."""


Hook = Callable[[Any], Any]
SharedHook = Callable[[Any], tuple[int, bool]]

#: A class's name and bases as the interpreter knows them; a metaclass has no say in it.
name_of: Callable[[type], str] = vars(type)["__name__"].__get__
mro_of: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__


class _Encoder:
    """One encoding: carries the budget and the hook for what is not plain."""

    def __init__(self, opaque: Hook | None, shared: SharedHook | None) -> None:
        self.opaque = opaque
        self.shared = shared
        self.nodes = 0

    def encode(self, value: Any, depth: int) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise CodecError("value too deep or too large")
        kind = type(value)
        if kind is bool or kind is str or value is None:
            return value
        if kind is int:
            return value if -_PLAIN_INT < value < _PLAIN_INT else ["i", _hex(value)]
        if kind is float:
            return value if math.isfinite(value) else ["f", float.__repr__(value)]
        tag = _CONTAINERS.get(kind)
        if tag is not None:
            if self.shared is not None and tag in SHARED_TAGS:
                number, known = self.shared(value)
                return ["m", number] if known else ["m", number, tag, self.items(value, depth, tag)]
            return [tag, self.items(value, depth, tag)]
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return scalar(value)
        if kind is type and value in _CLASS_NAMES:
            return ["T", _CLASS_NAMES[value]]
        return self.other(value, kind, depth)

    def items(self, value: Any, depth: int, tag: str) -> list[Any]:
        deeper, encode = depth + 1, self.encode
        if tag in _PAIRED:
            return [encode(part, deeper) for pair in dict.items(value) for part in pair]
        return [encode(item, deeper) for item in value]

    def other(self, value: Any, kind: type, depth: int) -> Any:
        """What is of no exact builtin type: the hook first, then its content."""
        if self.opaque is not None and (handle := self.opaque(value)) is not None:
            return ["o", handle]
        plain = content(value, kind)
        if plain is value:
            raise CodecError(f"a {name_of(kind)} is no plain value")
        return self.encode(plain, depth + 1)


def content(value: Any, kind: type | None = None) -> Any:
    """The builtin value that an instance of a builtin's subclass holds; the value itself where there is none.

    Only methods of the builtin bases are used, never the subclass's own.
    """
    mro = mro_of(kind or type(value))
    for base, take in _CONTENT:
        if base in mro:
            return take(value)
    if any(type.__getattribute__(cls, "__module__") == "numpy" for cls in mro):
        return value.tolist() if hasattr(value, "tolist") else value  # arrays, and scalars of numpy
    return value


_CONTENT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__pos__),
    (float, float.__pos__),
    (complex, complex.__pos__),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (bytearray, lambda value: bytearray(bytearray.__getitem__(value, slice(None)))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (list, lambda value: list(list.__iter__(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (deque, lambda value: deque(deque.__iter__(value), value.maxlen)),
    (type({}.keys()), list),
    (type({}.values()), list),
    (type({}.items()), list),
)


def _hex(value: int) -> str:
    if value.bit_length() > 4 * MAX_INT_HEX:
        raise CodecError("integer too large")
    return hex(value)


def _zone(value: datetime | time) -> Any:
    """UTC offset in seconds; None for naive."""
    offset = value.utcoffset()
    return None if offset is None else offset.total_seconds()


def _clock(value: datetime | time) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold, _zone(value)]


def _decimal_text(value: Decimal) -> str:
    text = Decimal.__str__(value)
    if len(text) > MAX_DECIMAL:
        raise CodecError("decimal too long")
    return text


_SCALARS: dict[type, Callable[[Any], Any]] = {
    bytes: lambda value: ["b", base64.b64encode(value).decode("ascii")],
    bytearray: lambda value: ["B", base64.b64encode(value).decode("ascii")],
    complex: lambda value: ["c", repr(value.real), repr(value.imag)],
    range: lambda value: ["r", _hex(value.start), _hex(value.stop), _hex(value.step)],
    slice: lambda value: ["S", *_bounds(value)],
    type(Ellipsis): lambda value: ["e"],
    type(NotImplemented): lambda value: ["n"],
    datetime: lambda value: ["w", value.year, value.month, value.day, *_clock(value)],
    date: lambda value: ["y", value.year, value.month, value.day],
    time: lambda value: ["h", *_clock(value)],
    timedelta: lambda value: ["u", value.days, value.seconds, value.microseconds],
    Decimal: lambda value: ["D", _decimal_text(value)],
    Fraction: lambda value: ["Q", _hex(value.numerator), _hex(value.denominator)],
}


def _bounds(value: slice) -> list[Any]:
    bounds = [value.start, value.stop, value.step]
    if any(part is not None and type(part) is not int for part in bounds):
        raise CodecError("a slice of other than integers")
    return [None if part is None else _hex(part) for part in bounds]


_CONTAINERS: dict[type, str] = {
    list: "l",
    tuple: "t",
    dict: "d",
    set: "s",
    frozenset: "z",
    deque: "q",
    Counter: "C",
    OrderedDict: "O",
}
_PAIRED = frozenset("dCO")
_HASHED = frozenset("dCOsz")
SHARED_TAGS: dict[str, type] = {"l": list, "d": dict, "s": set}


def encode(value: Any, opaque: Hook | None = None, shared: SharedHook | None = None) -> Any:
    """A value as JSON-able data.

    Args:
        value: of builtin types, or of subclasses of them.
        opaque: asked about everything else first; gives JSON-able data for a handle, or None.
        shared: asked about each list, dict and set; gives its number, and whether the other side knows it, so
            that its items need not be sent.

    Raises:
        CodecError: when it is no plain value, or too large.
    """
    return _Encoder(opaque, shared).encode(value, 0)


class _Decoder:
    """One decoding: carries the budget and the hooks."""

    def __init__(self, handle: Hook | None, shared: Callable[[list[Any], Hook], Any] | None) -> None:
        self.handle = handle
        self.shared = shared
        self.nodes = 0
        self.depth = 0

    def decode(self, data: Any) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise CodecError("too large")
        kind = type(data)
        if kind is bool or kind is str or kind is float or data is None:
            return data
        if kind is int:
            if -_PLAIN_INT < data < _PLAIN_INT:
                return data
            raise CodecError("integer not in hex")
        if kind is not list or not data or type(data[0]) is not str:
            raise CodecError("no tag")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CodecError("too deep")
        value = self.tagged(data[0], data)
        self.depth -= 1
        return value

    def tagged(self, tag: str, data: list[Any]) -> Any:
        build = _BUILD.get(tag)
        if build is not None:
            if len(data) != 2 or type(data[1]) is not list:
                raise CodecError("bad container")
            return build([self.decode(item) for item in data[1]])
        parse = _PARSE.get(tag)
        if parse is not None:
            try:
                return parse(*data[1:])
            except (TypeError, ValueError, ArithmeticError, KeyError, binascii.Error) as error:
                raise CodecError(f"bad {tag}: {type(error).__name__}") from None
        if tag == "o" and self.handle is not None and len(data) == 2:
            return self.handle(data[1])
        if tag == "m" and self.shared is not None:
            return self.shared(data[1:], self.decode)
        raise CodecError("unknown tag")


def check_hashes(keys: list[Any]) -> None:
    """Refuse keys that cannot be hashed, or that were made to collide.

    Building a dict of n keys that share a hash takes time of order n². Numbers are not salted, and the salt of
    strings is no secret where processes are forked from one.

    Raises:
        CodecError: when one cannot be hashed, or too many share a hash value.
    """
    try:
        hashes = [hash(key) for key in keys]
    except TypeError:
        raise CodecError("unhashable key") from None
    if len(keys) > MAX_SAME_HASH and max(Counter(hashes).values()) > MAX_SAME_HASH:
        raise CodecError("keys collide")


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise CodecError("a key without a value")
    check_hashes(items[::2])
    return dict(zip(items[::2], items[1::2], strict=True))


def _members(items: list[Any]) -> list[Any]:
    check_hashes(items)
    return items


def _count(items: list[Any]) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, _pairs(items))
    return counter


_BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "l": list,
    "t": tuple,
    "d": _pairs,
    "s": lambda items: set(_members(items)),
    "z": lambda items: frozenset(_members(items)),
    "q": deque,
    "C": _count,
    "O": lambda items: OrderedDict(_pairs(items)),
}


def build(tag: str, items: list[Any]) -> Any:
    """A container from its tag and decoded items.

    Raises:
        CodecError: when its keys cannot be hashed or collide.
    """
    return _BUILD[tag](items)


def _integer(text: str) -> int:
    if type(text) is not str or len(text) > MAX_INT_HEX + 3:
        raise CodecError("bad integer")
    return int(text, 16)


def _float(text: str) -> float:
    if type(text) is not str or len(text) > 40:
        raise CodecError("bad float")
    return float(text)


def _bytes(text: str) -> bytes:
    if type(text) is not str:
        raise CodecError("bad bytes")
    return base64.b64decode(text, validate=True)


def _range(*bounds: str) -> range:
    value = range(*map(_integer, bounds))
    if value.stop - value.start > MAX_RANGE * abs(value.step) or (
        value.start - value.stop > MAX_RANGE * abs(value.step)
    ):
        raise CodecError("range too long")
    return value


def _decimal(text: str) -> Decimal:
    if type(text) is not str or len(text) > MAX_DECIMAL:
        raise CodecError("bad decimal")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise CodecError("bad decimal") from None
    if value.is_snan() or (value.is_finite() and abs(value.adjusted()) > MAX_DECIMAL):
        raise CodecError("decimal out of range")
    return value


def _tz(offset: Any) -> timezone | None:
    return None if offset is None else timezone(timedelta(seconds=offset))


def _date(year: int, month: int, day: int) -> date:
    return date(year, month, day)


def _datetime(*parts: Any) -> datetime:
    year, month, day, hour, minute, second, micro, fold, offset = parts
    return datetime(year, month, day, hour, minute, second, micro, _tz(offset), fold=fold)


def _time(*parts: Any) -> time:
    hour, minute, second, micro, fold, offset = parts
    return time(hour, minute, second, micro, _tz(offset), fold=fold)


def _delta(days: int, seconds: int, micro: int) -> timedelta:
    if not all(type(part) is int for part in (days, seconds, micro)):
        raise CodecError("bad duration")
    return timedelta(days, seconds, micro)


def _slice(*bounds: Any) -> slice:
    start, stop, step = (None if part is None else _integer(part) for part in bounds)
    return slice(start, stop, step)


_PARSE: dict[str, Callable[..., Any]] = {
    "i": _integer,
    "f": _float,
    "c": lambda real, imag: complex(_float(real), _float(imag)),
    "b": _bytes,
    "B": lambda text: bytearray(_bytes(text)),
    "r": _range,
    "S": _slice,
    "e": lambda: Ellipsis,
    "n": lambda: NotImplemented,
    "w": _datetime,
    "y": _date,
    "h": _time,
    "u": _delta,
    "D": _decimal,
    "Q": lambda top, bottom: Fraction(_integer(top), _integer(bottom)),
    "T": lambda name: BUILTIN_CLASSES[name],
}


def decode(
    data: Any, handle: Hook | None = None, shared: Callable[[list[Any], Hook], Any] | None = None
) -> Any:
    """The value of an encoding; hostile data is expected here.

    Args:
        data: what JSON gave.
        handle: makes an object of a handle's data; without it handles are refused.
        shared: makes a container of a shared container's data, given the rest of it and this decoder.

    Raises:
        CodecError: when it is no encoding of a plain value within the limits.
    """
    try:
        return _Decoder(handle, shared).decode(data)
    except RecursionError:
        raise CodecError("too deep") from None
