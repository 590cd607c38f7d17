"""The untrusted program's side of the talk with its tests. Standard library only.

Runs in the confined child, behind `candidate`: it looks up names, calls functions, reads and sets attributes as
the judge asks, and lets the program call back what the tests handed it. It decides nothing: whatever is sent
from here is hostile to the judge.
"""

from __future__ import annotations

import base64
import builtins
import copy
import functools
import operator
import os
import pickle
import types
from collections.abc import Callable
from typing import Any

from collm_envs.sandbox import codec, frames
from collm_envs.sandbox.twins import Shared

#: What the judge may apply to objects; the names are those of the special methods.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "__len__": len,
    "__iter__": iter,
    "__next__": next,
    "__reversed__": reversed,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__contains__": operator.contains,
    "__str__": str,
    "__repr__": repr,
    "__format__": format,
    "__bool__": bool,
    "__hash__": hash,
    "__int__": int,
    "__float__": float,
    "__index__": operator.index,
    "__abs__": abs,
    "__round__": round,
    "__copy__": copy.copy,
    "__deepcopy__": copy.deepcopy,
    "__neg__": operator.neg,
    "__pos__": operator.pos,
    "__invert__": operator.invert,
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "__lt__": operator.lt,
    "__le__": operator.le,
    "__gt__": operator.gt,
    "__ge__": operator.ge,
}
BINARY = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
)
for _name in BINARY:
    _function = getattr(operator, f"__{_name}__")
    OPERATIONS[f"__{_name}__"] = _function
    OPERATIONS[f"__r{_name}__"] = lambda self, other, function=_function: function(other, self)

SPECIALS = frozenset(OPERATIONS) | {"__call__", "__enter__"}

_FUNCTIONS: tuple[type, ...] = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
)
_FUNCTIONS += (functools.partial, types.MethodDescriptorType, types.WrapperDescriptorType)
_METHODS = (types.FunctionType, staticmethod, classmethod, types.MethodDescriptorType)
_ORIGIN = "_collm_origin"  # on an exception that a test's callback raised: its number there
_read_exception_args: Callable[[BaseException], tuple[Any, ...]] = vars(BaseException)["args"].__get__


class CallbackError(Exception):
    """A function of the tests raised an exception of a type that is not known here."""


class Callback:
    """A function or a test double of the tests, as the program sees it."""

    def __init__(self, server: Server, number: int) -> None:
        self.__dict__["_collm"] = (server, number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in the tests' process."""
        server, number = self.__dict__["_collm"]
        return server.ask("call", number, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        server, number = self.__dict__["_collm"]
        return server.ask("get", number, (name,), {})


class Server:
    """Answers the judge's requests.

    Args:
        fd: stream to the judge.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.reader = frames.Reader(frames.MAX_FRAME)
        self.shared = Shared(1, self._opaque, self._handle)
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.callbacks: dict[int, Callback] = {}
        self.scope: dict[str, Any] = {}
        self.token = ""

    def run(self, module: types.ModuleType) -> None:
        """Serve requests about a module until the judge goes."""
        self.scope = module.__dict__
        try:
            while True:
                self._serve(self._receive())
        except frames.Closed:
            return

    def _receive(self) -> Any:
        return frames.unpack(self.reader.read(self.fd))

    def _write(self, packed: bytes) -> None:
        data = memoryview(packed)
        while data:
            data = data[_os_write(self.fd, data) :]

    def _serve(self, request: list[Any]) -> None:
        token, operation, changes, gone, *rest = request
        self.token, mark = token, self.shared.mark()
        try:
            self.shared.forget(gone)
            self.shared.apply(changes)
            result = getattr(self, "do_" + operation)(*rest)
            reply = ["value", self.shared.changes(), self._encode_result(result)]  # in the order of reading
        except frames.Closed:
            raise
        except BaseException as error:
            reply = ["raised", self.shared.changes(), *self._describe(error)]
        packed = frames.pack([token, *reply])
        if len(packed) > frames.MAX_ANSWER:
            self.shared.revoke(mark)
            names = [["builtins", "OverflowError"]]
            packed = frames.pack([token, "raised", [], None, names, ["the answer is too large"], None])
        self._write(packed)

    def _encode_result(self, result: Any) -> Any:
        try:
            return self.shared.encode(result)
        except (codec.CodecError, RecursionError):
            return ["o", self._number(result)]  # too deep or too large: a thing to hold, not to see

    def _describe(self, error: BaseException) -> list[Any]:
        """Origin or None, bases of its class, its arguments as far as they are plain, the object."""
        origin = vars(error).get(_ORIGIN)
        args = []
        for arg in _read_exception_args(error)[:8]:
            try:
                args.append(self.shared.encode(arg))
            except BaseException:
                args.append(f"<{codec.name_of(type(arg))}>")
        names = [[cls.__module__, codec.name_of(cls)] for cls in codec.mro_of(type(error))]
        return [origin, names, args, self._number(error)]

    def ask(self, operation: str, number: int, args: Any, kwargs: Any) -> Any:
        """Let the tests' side do something with an object of its own, and serve it meanwhile."""
        token, changes = self.token, self.shared.changes()
        values = [self.shared.encode(tuple(args)), self.shared.encode(tuple(kwargs.items()))]
        self._write(frames.pack([token, "callback", changes, operation, number, *values]))
        while True:
            reply = self._receive()
            if reply[0] != "":
                self._serve(reply)
                self.token = token
                continue
            _, kind, changes, *rest = reply
            self.shared.apply(changes)
            if kind == "value":
                return self.shared.decode(rest[0])
            raise self._exception(*rest)

    def _exception(self, origin: int, name: str, message: str) -> BaseException:
        kind = getattr(builtins, name, None)
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            kind = CallbackError
        error: BaseException
        try:
            error = kind(message)
        except Exception:
            error = CallbackError(message)
        error.__dict__[_ORIGIN] = origin
        return error

    def _hold(self, value: Any) -> int:
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return number

    def _number(self, value: Any) -> list[Any]:
        """A handle's data: what kind of thing it is, its number, and its class's number or its name."""
        kind = type(value)
        if kind is Callback:
            return ["callback", value.__dict__["_collm"][1]]
        if isinstance(value, type):
            return ["class", self._hold(value), 0]
        if isinstance(value, _FUNCTIONS):
            return ["function", self._hold(value), str(getattr(value, "__name__", "function"))[:100]]
        return ["instance", self._hold(value), self._hold(kind)]

    def _opaque(self, value: Any) -> list[Any] | None:
        """Handles for objects, also for those of the program's subclasses of builtin types."""
        plain = codec.content(value)
        if plain is not value and type(value).__module__ != self.scope.get("__name__"):
            return None
        return self._number(value)

    def _handle(self, data: list[Any]) -> Any:
        kind, number = data
        if kind == "pickle":
            return pickle.loads(base64.b64decode(number))  # from trusted tests to this throw-away process
        if kind == "callback":
            if number not in self.callbacks:
                self.callbacks[number] = Callback(self, number)
            return self.callbacks[number]
        return self.objects[number]

    def do_global(self, name: str) -> Any:
        """A name of the program: a list that holds its value, or an empty one."""
        return (self.scope[name],) if name in self.scope else ()

    def do_call(self, number: int, args: Any, kwargs: Any) -> Any:
        """Call an object."""
        return self.objects[number](*self.shared.decode(args), **dict(self.shared.decode(kwargs)))

    def do_method(self, number: int, name: str, args: Any, kwargs: Any) -> Any:
        """Call a method of an object."""
        method = getattr(self.objects[number], name)
        return method(*self.shared.decode(args), **dict(self.shared.decode(kwargs)))

    def do_get(self, number: int, name: str) -> Any:
        """Read an attribute."""
        return getattr(self.objects[number], name)

    def do_set(self, number: int, name: str, value: Any) -> None:
        """Set an attribute."""
        setattr(self.objects[number], name, self.shared.decode(value))

    def do_delete(self, number: int, name: str) -> None:
        """Delete an attribute."""
        delattr(self.objects[number], name)

    def do_apply(self, name: str, number: int, args: Any) -> Any:
        """Apply an operation, named after its special method."""
        return OPERATIONS[name](self.objects[number], *self.shared.decode(args))

    def do_content(self, number: int) -> Any:
        """The plain value that an instance of a builtin's subclass holds."""
        return codec.content(self.objects[number])

    def do_dir(self, number: int) -> Any:
        """Names of an object's attributes."""
        return dir(self.objects[number])

    def do_class(self, number: int) -> Any:
        """What the judge must know of a class to stand in for it: see `proxies.make_class`."""
        cls = self.objects[number]
        mro = codec.mro_of(cls)
        members: dict[str, Any] = {}
        for base in reversed(mro[:-1]):
            members.update(vars(base))
        bases = []
        for base in cls.__bases__:
            own = base.__module__ == self.scope.get("__name__")
            bases.append((base.__module__, codec.name_of(base), self._hold(base) if own else -1))
        specials = [name for name in members if name in SPECIALS]
        methods = [name for name, member in members.items() if isinstance(member, _METHODS)]
        content = any(base in _CONTENT_BASES for base in mro)
        hashable = members.get("__hash__", 0) is not None
        return codec.name_of(cls), tuple(bases), tuple(specials), tuple(methods), content, hashable


_CONTENT_BASES = frozenset({int, float, complex, str, bytes, tuple, list, dict, set, frozenset})
_os_write = os.write
