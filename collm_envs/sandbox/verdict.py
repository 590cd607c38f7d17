"""Does an answer meet its test's expectation? For the supervisor; trusted process, hostile answers.

An expectation is a small expression tree that `plan` made of an assert, with one hole for the answer. It is
evaluated here over decoded plain values, with Python's own rules: `4.0 == 4`, `True == 1`. No method of the
program's making can run, and every step is bounded.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from collm_envs.sandbox import codec

STATUSES = ("pass", "fail", "error", "protocol")
MAX_MESSAGE = 200  # characters
_SHOWN = 60  # characters of one value in a message
_ITEMS = 12  # items of a container in a message
_SUM_STEPS = 1 << 22  # words that a sum may go through: about 0.1 s

_NUMBERS = (int, float, complex, bool, codec.Decimal, codec.Fraction)
_HOLDERS = (list, tuple, set, frozenset, dict, deque)
_BRACKETS = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}")}


class Opaque:
    """An answer, or a part of one, that is no plain value: all that is known is its type and its truth.

    It equals nothing but itself.
    """

    __slots__ = ("name", "truth")

    def __init__(self, name: str, truth: bool) -> None:
        self.name, self.truth = name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.name} object>"


def _opaque(data: Any) -> Opaque:
    if type(data) is not list or len(data) != 2 or type(data[0]) is not str or type(data[1]) is not bool:
        raise codec.CodecError("bad object")
    return Opaque(data[0][:_SHOWN], data[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS)


def _product(left: Any, right: Any) -> Any:
    if not _is_number(left) or not _is_number(right):
        raise TypeError("only numbers are multiplied here: a text times an answer may fill the memory")
    return left * right


def _words(value: Any) -> int:
    """How many 64-bit words a number holds."""
    if isinstance(value, codec.Fraction):
        return 1 + (value.numerator.bit_length() + value.denominator.bit_length()) // 64
    return 1 + value.bit_length() // 64 if isinstance(value, int) else 1


def _steps(total: Any, item: Any) -> int:
    """About how many words an addition goes through."""
    kinds = (type(total), type(item))
    if codec.Fraction in kinds:  # numerators and denominators are multiplied
        return 64 + _words(total) * _words(item)
    if codec.Decimal in kinds:  # an integer is converted in time of order n²
        return 1 + (_words(total) * _words(item)) ** 2
    return _words(total)


def _sum(items: Any) -> Any:
    total: Any = 0
    left = _SUM_STEPS
    for item in items:
        if type(item) is int and type(total) is int:  # the most frequent kind, told apart first
            left -= 1 + total.bit_length() // 64
        elif _is_number(item):
            left -= _steps(total, item)
        else:
            raise TypeError("only numbers are summed here: joining many lists takes time of order n²")
        if left < 0:
            raise ValueError("too much to sum")
        total = total + item
    return total


COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": lambda item, holder: item in holder,
    "NotIn": lambda item, holder: item not in holder,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": _product,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "isinstance": isinstance,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "round": round,
    "set": set,
    "sorted": sorted,
    "sum": _sum,
    "tuple": tuple,
    "type": type,
    "math.fabs": math.fabs,
    "math.isclose": math.isclose,
    "math.isfinite": math.isfinite,
    "math.isnan": math.isnan,
}


def _evaluate(node: list[Any], answer: Any) -> Any:
    kind, *parts = node
    if kind == "answer":
        return answer
    if kind == "const":
        return codec.decode(parts[0])
    if kind == "not":
        return not _evaluate(parts[0], answer)
    if kind == "neg":
        return -_evaluate(parts[0], answer)
    if kind == "compare":
        names, operands = parts
        left = _evaluate(operands[0], answer)
        for name, operand in zip(names, operands[1:], strict=True):
            right = _evaluate(operand, answer)
            if not COMPARE[name](left, right):
                return False
            left = right
        return True
    if kind == "binary":
        return BINARY[parts[0]](_evaluate(parts[1], answer), _evaluate(parts[2], answer))
    if kind == "call":
        name, args, kwargs = parts
        values = [_evaluate(arg, answer) for arg in args]
        if name == "set":
            codec.check_hashes(list(values[0]) if values else [])
        return FUNCTIONS[name](*values, **{key: _evaluate(arg, answer) for key, arg in kwargs.items()})
    raise ValueError(f"unknown node {kind}")


def show(value: Any, depth: int = 0) -> str:
    """A plain value as text of bounded length, without building a long one first."""
    inside = list(islice(value, _ITEMS)) if isinstance(value, _HOLDERS) else []
    if isinstance(value, _HOLDERS) and (depth > 3 or len(value) > _ITEMS):
        text = f"{type(value).__name__} of {len(value)} items"
    elif value == set():
        text = f"{type(value).__name__}()"
    elif isinstance(value, dict):
        text = (
            "{" + ", ".join(f"{show(key, depth + 1)}: {show(value[key], depth + 1)}" for key in inside) + "}"
        )
    elif isinstance(value, _HOLDERS):
        opening, closing = _BRACKETS.get(type(value), (f"{type(value).__name__}(", ")"))
        comma = "," if len(inside) == 1 and isinstance(value, tuple) else ""
        text = opening + ", ".join(show(item, depth + 1) for item in inside) + comma + closing
    elif isinstance(value, str | bytes | bytearray):
        text = repr(value[:_SHOWN])
    else:
        try:
            text = repr(value)
        except ValueError:  # an integer of more digits than Python writes
            text = f"{type(value).__name__} of many digits"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _explain(expect: dict[str, Any], answer: Any) -> str:
    tree = expect["tree"]
    text = f"{expect['call'][:_SHOWN]} gave {show(answer)}"
    if tree[0] == "compare" and tree[1] == ["Eq"] and ["answer"] in tree[2]:
        other = tree[2][1] if tree[2][0] == ["answer"] else tree[2][0]
        return f"{text}, not {show(_evaluate(other, answer))}"[:MAX_MESSAGE]
    return f"{text}: {expect['text']}"[:MAX_MESSAGE]


def judge(expect: dict[str, Any], data: Any) -> tuple[str, str]:
    """Judge one answer.

    Args:
        expect: what `plan` wrote for the test: `tree`, and for messages `call` and `text`.
        data: the answer as it came; hostile.

    Returns:
        Status (`pass`, `fail`, or `protocol` for what is no answer) and a message ("" for a pass), at most 200
        characters.
    """
    try:
        answer = codec.decode(data, _opaque)
    except codec.CodecError as error:
        return "protocol", f"not an answer: {error}"[:MAX_MESSAGE]
    try:
        if _evaluate(expect["tree"], answer):
            return "pass", ""
        return "fail", _explain(expect, answer)
    except (TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        return "fail", f"{_explain_safely(expect, answer)} ({type(error).__name__})"[:MAX_MESSAGE]


def _explain_safely(expect: dict[str, Any], answer: Any) -> str:
    return f"{expect['call'][:_SHOWN]} gave {show(answer)}: {expect['text'][:_SHOWN]}"
