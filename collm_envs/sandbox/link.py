"""The judge's end of the socket to an untrusted program's process.

For `judge`. Sends requests, hands out stand-ins (`proxies`) for what comes back, lets the program call back what
the tests gave it. All that arrives is hostile: it is decoded strictly, an answer must name its question, and
exceptions are of classes that mean nothing to the judge itself.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from collm_envs.sandbox import codec, frames
from collm_envs.sandbox.proxies import Function, Method, Mirror, make_class
from collm_envs.sandbox.serve import SPECIALS
from collm_envs.sandbox.twins import Shared

MAX_NAME = 200  # characters
MAX_BASES = 32  # depth of a class's bases
_PRIVATE = ("unittest", "collm_envs", "_pytest", "pytest")  # exceptions that mean something to a judge

_ENDING = ("BaseException", "SystemExit", "KeyboardInterrupt", "GeneratorExit")
_PUBLIC = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType)
_set_local = object.__setattr__


class Gone(BaseException):
    """The program's process ended."""


class Foul(BaseException):
    """What came is no answer to what was asked."""


class CandidateError(BaseException):
    """The program raised what tests must not confuse with anything of their own."""


def known_exception(module: Any, name: Any) -> type[Exception] | None:
    """An exception class of Python or of a module that the tests imported, by its name."""
    if type(module) is not str or type(name) is not str or module.partition(".")[0] in _PRIVATE:
        return None
    found = getattr(sys.modules.get(module), "__dict__", {}).get(name)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


class NotSendable(CandidateError):
    """Tests handed the program something that cannot cross; no exception that they could expect."""


class Link:
    """The judge's end of the socket to the program's process.

    Args:
        fd: the socket.
        operators: names of the program's classes with whose objects the tests do arithmetic.

    Attributes:
        gone: whether the program's process ended.
        foul: what was wrong with an answer; "" while all is well.
        caught: what an assertion in a callback said, which the program may have swallowed.
    """

    def __init__(self, fd: int, operators: frozenset[str] = frozenset()) -> None:
        self._series, self._asked = os.urandom(6).hex(), 0
        self.fd = fd
        self.operators = operators
        self.reader = frames.Reader(frames.MAX_ANSWER)
        self.shared = Shared(0, self._opaque, self._handle)
        self.gone = False
        self.foul = ""
        self.caught: BaseException | None = None
        self._lock = threading.RLock()  # tests may start threads
        self.shadowed: dict[int, set[str]] = {}
        self._objects: dict[int, Any] = {}
        self._locals: list[Any] = []
        self._local_numbers: dict[int, int] = {}
        self._errors: list[BaseException] = []
        self._unsent: list[Any] = []
        self._dropped: list[int] = []

    def request(self, operation: str, fixed: tuple[Any, ...] = (), values: tuple[Any, ...] = ()) -> Any:
        """Ask the program's process something.

        Args:
            operation: see `serve.Server`.
            fixed: its arguments that are JSON already.
            values: its arguments that are values.

        Returns:
            The value, or a stand-in for it.

        Raises:
            Gone: the process ended.
            Foul: it did not answer what was asked.
            BaseException: what the program raised.
        """
        with self._lock:
            return self._request(operation, fixed, values)

    def _request(self, operation: str, fixed: tuple[Any, ...], values: tuple[Any, ...]) -> Any:
        if self.gone:
            raise Gone("the program's process has ended")
        if self.foul:
            raise Foul(self.foul)
        self._asked += 1
        token = f"{self._series}.{self._asked}"
        self._dropped += self.shared.prune()
        self._unsent += self.shared.changes()
        try:
            data = [self.shared.encode(value) for value in values]
        except codec.CodecError as error:
            raise NotSendable(f"cannot be handed to the program: {error}") from None
        changes, self._unsent = self._unsent, []
        gone, self._dropped = self._dropped, []
        try:
            self._send([token, operation, changes, gone, *fixed, *data])
            return self._await(token)
        except frames.Closed:
            self.gone = True
            raise Gone("the program's process has ended") from None
        except (codec.CodecError, frames.BadFrame) as error:
            self.foul = str(error) or "no answer"
            raise Foul(self.foul) from None

    def _send(self, message: list[Any]) -> None:
        frames.write(self.fd, frames.pack(message))

    def _await(self, token: str) -> Any:
        while True:
            message = frames.unpack(self.reader.read(self.fd))
            if type(message) is not list or len(message) < 3 or message[0] != token:
                raise codec.CodecError("an answer to no question")
            _, kind, changes, *rest = message
            self.shared.apply(changes)
            if kind == "value" and len(rest) == 1:
                return self.shared.decode(rest[0])
            if kind == "raised" and len(rest) == 4:
                raise self._exception(*rest)
            if kind != "callback" or len(rest) != 4:
                raise codec.CodecError("an answer of no known kind")
            self._send(["", *self._call_back(*rest)])

    def _call_back(self, operation: Any, number: Any, args: Any, kwargs: Any) -> list[Any]:
        """Do what the program asks of a function or object that the tests handed it."""
        if type(number) is not int or not 0 <= number < len(self._locals):
            raise codec.CodecError("an unknown callback")
        target, values, named = self._locals[number], self.shared.decode(args), self.shared.decode(kwargs)
        if type(values) is not tuple or type(named) is not tuple:
            raise codec.CodecError("bad arguments")
        try:
            calls = operation == "call"
            result = target(*values, **dict(named)) if calls else _public(target, *values)
            return ["value", self.shared.changes(), self.shared.encode(result)]
        except (Gone, Foul):
            raise
        except BaseException as error:
            self._errors.append(error)
            if isinstance(error, AssertionError):
                self.caught = error
            text = error.args[0] if error.args and type(error.args[0]) is str else ""
            changes = self.shared.changes()
            return ["raised", changes, len(self._errors) - 1, type(error).__name__, text[:MAX_NAME]]

    def _opaque(self, value: Any) -> list[Any] | None:
        """Handles for the program's own things, and for functions and objects of the tests."""
        kind = type(value)
        if isinstance(kind, Mirror) or isinstance(value, Mirror):
            return ["object", value._collm_number]
        if kind is Method:
            value = value.resolve()
        if type(value) is Function:
            return ["object", value._collm_number]
        if type(value) is not object and (
            _is_public_function(value) or not (callable(value) or _is_double(value))
        ):
            return _copied(value)
        if codec.content(value) is not value:
            return None
        number = self._local_numbers.get(id(value))
        if number is None:
            number = self._local_numbers[id(value)] = len(self._locals)
            self._locals.append(value)
        return ["callback", number]

    def _handle(self, data: Any) -> Any:
        if type(data) is not list or len(data) not in (2, 3) or any(type(part) is bool for part in data):
            raise codec.CodecError("bad handle")
        kind, number, *rest = data
        if type(number) is not int or number < 0:
            raise codec.CodecError("bad handle")
        if kind == "callback" and number < len(self._locals):
            return self._locals[number]
        if number in self._objects:
            return self._objects[number]
        if kind == "function" and rest and type(rest[0]) is str:
            found: Any = Function(self, number, rest[0][:MAX_NAME])
        elif kind == "class":
            found = self._class(number, 0)
        elif kind == "instance" and rest and type(rest[0]) is int:
            cls = self._class(rest[0], 0)
            if not isinstance(cls, Mirror):
                raise codec.CodecError("no class")
            found = cls.__new__(cls)  # type: ignore[call-overload]
            _set_local(found, "_collm_number", number)
        else:
            raise codec.CodecError("bad handle")
        return self._objects.setdefault(number, found)

    def _class(self, number: int, depth: int) -> Any:
        if number in self._objects:
            return self._objects[number]
        if depth > MAX_BASES:
            raise codec.CodecError("too many bases")
        about = self.request("class", (number,))
        try:
            name, bases, specials, methods, content, hashable = about
            local = [self._base(module, base, own, depth) for module, base, own in bases]
            methods = frozenset(method for method in methods if type(method) is str)
            specials = SPECIALS.intersection(specials)
        except (TypeError, ValueError):
            raise codec.CodecError("bad class") from None
        if number in self._objects:  # described meanwhile, as a base of itself
            raise codec.CodecError("bad class")
        if type(name) is not str or not name.isidentifier() or len(name) > MAX_NAME:
            name = "Unnamed"
        traits = {"link": self, "number": number, "methods": methods}
        traits |= {"content": content is True, "hashable": hashable is True}
        known = tuple(dict.fromkeys(base for base in local if base is not None))
        self._objects[number] = cls = make_class(name, known, set(specials), traits)
        return cls

    def _base(self, module: Any, name: Any, number: Any, depth: int) -> type | None:
        if type(number) is int and number >= 0:
            found = self._class(number, depth + 1)
            return found if isinstance(found, Mirror) else None
        if module == "builtins" and name in _ENDING:
            return CandidateError
        return known_exception(module, name)

    def _exception(self, origin: Any, names: Any, args: Any, thing: Any) -> BaseException:
        """The exception that stands for one of the program's."""
        if type(origin) is int and 0 <= origin < len(self._errors):
            return self._errors[origin]
        if type(names) is not list or type(args) is not list:
            raise codec.CodecError("bad exception")
        values = [self.shared.decode(arg) for arg in args]
        pairs = [pair for pair in names if type(pair) is list and len(pair) == 2]
        if pairs and pairs[0] == ["builtins", "SystemExit"]:
            return SystemExit(*values)
        known = known_exception(*pairs[0]) if pairs else None
        if known is not None:
            return _build(known, values)
        found = self._handle(thing) if pairs and pairs[0][0] != "builtins" else None
        if isinstance(found, BaseException):
            found.args = tuple(values)
            return found
        label = pairs[0][1] if pairs else "exception"
        return CandidateError(f"{str(label)[:MAX_NAME]}: {', '.join(map(str, values))[:MAX_NAME]}")


def _public(target: Any, name: Any) -> Any:
    """An attribute of a test double that the program may see.

    What a double has of `unittest`, such as `configure_mock`, is the tests': with it, a program could make the
    double agree to everything.
    """
    if type(name) is not str or name.startswith("_") or not _is_double(target):
        raise AttributeError(name)
    for kind in type(target).__mro__:
        if kind.__module__.partition(".")[0] == "unittest" and name in vars(kind):
            raise AttributeError(name)
    return getattr(target, name)


def _is_double(value: Any) -> bool:
    """Whether this is an object that the tests' own source made to be handed over."""
    module = type(value).__module__
    return module == "tests" or module == "unittest.mock"


def _is_public_function(value: Any) -> bool:
    """Whether this is a library's function or class: sent by name, so that it is called over there.

    As a callback, the program could call it here, with arguments of its own: think of `eval`.
    """
    if getattr(value, "__module__", None) == "tests" or not isinstance(value, _PUBLIC):
        return False
    owner = getattr(value, "__self__", None)
    return owner is None or isinstance(owner, type | types.ModuleType)


def _copied(value: Any) -> list[Any] | None:
    """An object of a library, by copy: pickled here, where it is trusted, and never on the way back."""
    module = type(value).__module__.partition(".")[0]
    if codec.content(value) is not value and module != "numpy":
        return None
    try:
        return ["pickle", base64.b64encode(pickle.dumps(value)).decode("ascii")]
    except Exception:
        return None


def _build(known: type[Exception], values: list[Any]) -> Exception:
    try:
        return known(*values)
    except Exception:
        error = known.__new__(known)
        error.args = tuple(values)
        return error


class Scope(dict[str, Any]):
    """Globals of the tests; names that neither they nor Python define are looked up in the program.

    Args:
        find: gives `(value,)` of a name of the program, or `()`.
        bindings: the tests' names for the program's.
    """

    def __init__(self, find: Callable[[str], Any], bindings: dict[str, str]) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self._find, self._bindings = find, bindings

    def __missing__(self, name: str) -> Any:
        own = name in _BUILTINS or (name.startswith("__") and name.endswith("__"))
        if name not in self._bindings and own:
            raise KeyError(name)
        found = self._find(self._bindings.get(name, name))
        if type(found) is not tuple or not found:
            raise KeyError(name)
        value = found[0]
        if isinstance(value, Function | Mirror):
            self[name] = value  # constants are not kept: the program may change them
        return value

    def fetch(self, name: str) -> None:
        """Take a name of the program into the scope, if there is one."""
        with contextlib.suppress(KeyError):
            self[name] = self[name]


_BUILTINS = frozenset(vars(builtins))
