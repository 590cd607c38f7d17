"""The untrusted program's own process: loads it, calls it, sends back what it gave. Standard library only.

Runs in a confined child that is thrown away. No expected value ever comes here. The program shares this
interpreter and may break everything in it; then the reader outside sees garbage or the end of the stream, and
no test passes by that.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from collm_envs.sandbox import codec, frames

MODULE_NAME = "solution"  # how the program's module is called; it is never "__main__"
MAX_MESSAGE = 200  # characters of an exception's message
_MAX_ARGS = 4  # arguments of an exception that its message shows

# The program may patch any module: what is needed after it has run is held here.
_write, _type, _len, _pack = os.write, type, len, frames.pack
_encode, _decode, _CodecError = codec.encode, codec.decode, codec.CodecError
_exception_args: Callable[[BaseException], tuple[Any, ...]] = vars(BaseException)["args"].__get__
_name_of, _mro_of, _content = codec.name_of, codec.mro_of, codec.content


def _send(fd: int, message: list[Any]) -> None:
    data = memoryview(_pack(message))
    while data:
        data = data[_write(fd, data) :]


def _plain_text(value: Any) -> str:
    """Text of an exception's argument without running any method of the program's making."""
    kind = _type(value)
    if kind is str:
        return value[:MAX_MESSAGE]
    if value is None or kind is bool or kind is float or (kind is int and value.bit_length() < MAX_MESSAGE):
        return repr(value)
    return f"<{_name_of(kind)[:MAX_MESSAGE]}>"


def describe(error: BaseException) -> tuple[str, str]:
    """Name and message of an exception, without calling its `__str__` or `__repr__`.

    Returns:
        The class's name and its message, each at most 200 characters.
    """
    kind = _type(error)
    args = _exception_args(error)
    if SyntaxError in _mro_of(kind) and _len(args) == 2 and _type(args[1]) is tuple:
        line = args[1][1] if _len(args[1]) > 1 else None
        text = _plain_text(args[0]) + (f" (line {line})" if _type(line) is int else "")
    else:
        text = ", ".join([_plain_text(arg) for arg in args[:_MAX_ARGS]])
    return _name_of(kind)[:MAX_MESSAGE], text[:MAX_MESSAGE]


def new_module() -> types.ModuleType:
    """A fresh module where the program will live, known to `sys.modules` as dataclasses and pickle expect."""
    module = types.ModuleType(MODULE_NAME)
    sys.modules[MODULE_NAME] = module
    return module


def execute(code: str, module: types.ModuleType) -> None:
    """Compile and run the program in its module; whatever it raises comes through."""
    exec(compile(code, f"<{MODULE_NAME}>", "exec", dont_inherit=True), module.__dict__)


def prepare_code(job: dict[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    """The program's text: as given, or made by the trusted recipe that the job names.

    Returns:
        The code (None: there is no program in it), and the recipe's facts (None without a recipe).
    """
    recipe = job.get("prepare")
    if not recipe:
        return job.get("code") or "", None
    module, _, function = recipe.partition(":")
    code, facts = getattr(importlib.import_module(module), function)(job.get("payload") or {})
    return code, dict(facts)


def load(job: dict[str, Any], out_fd: int) -> types.ModuleType | None:
    """Make and load the program, and tell the reader how it went.

    Returns:
        The program's module, or None when it is broken (said in a `broken` frame).
    """
    nonce = job["nonce"]
    module = new_module()
    try:
        code, facts = prepare_code(job)
        if facts is not None:
            _send(out_fd, [nonce, "facts", facts])
        if code is None:
            _send(out_fd, [nonce, "broken", "NoProgram", "no program in the answer"])
            return None
        execute(code, module)
    except BaseException as error:
        _send(out_fd, [nonce, "broken", *describe(error)])
        return None
    _send(out_fd, [nonce, "loaded"])
    return module


def _truth(value: Any) -> bool:
    try:
        return bool(value)
    except BaseException:
        return False


def _named(value: Any) -> list[Any]:
    return [_name_of(_type(value))[:MAX_MESSAGE], _truth(value)]


def _opaque(value: Any) -> list[Any] | None:
    """What is known of an object that is no plain value: its type's name and its truth."""
    return _named(value) if _content(value) is value else None


def answer(value: Any) -> Any:
    """Encoding of what a call gave; objects that are no plain values are only named."""
    try:
        return _encode(value, _opaque)
    except (_CodecError, RecursionError):
        return ["o", _named(value)]


def call(scope: dict[str, Any], name: str, args: Any, kwargs: Any) -> list[Any]:
    """One call of the program: `["value", data]`, or `["raised", exception name, message]`.

    Args:
        scope: the program's globals.
        name: function to call.
        args: encoding of a list or tuple; decoded afresh, so that no call sees what another one changed.
        kwargs: encoding of a dict.
    """
    try:
        if name not in scope:
            return ["raised", "NameError", f"name {name!r} is not defined"]
        return ["value", answer(scope[name](*_decode(args), **_decode(kwargs)))]
    except BaseException as error:
        return ["raised", *describe(error)]


def run(job: dict[str, Any], out_fd: int, rpc_fd: int | None) -> None:
    """Load the program and answer the job's calls, or serve a judge's.

    Args:
        job: `nonce`, `code` or `prepare` with `payload`, `mode` (`calls` or `serve`), and for `calls` a list of
            `[index, function, args, kwargs]`.
        out_fd: where frames go; each is a list that begins with the nonce.
        rpc_fd: stream to the judge, for `serve`.
    """
    nonce, calls = job["nonce"], job.get("calls") or []
    serve = None
    if job["mode"] == "serve":
        from collm_envs.sandbox.serve import Server

        assert rpc_fd is not None
        serve = Server(rpc_fd)
    module = load(job, out_fd)
    if module is None:
        return
    if serve is not None:
        serve.run(module)
    scope = module.__dict__
    for index, name, args, kwargs in calls:
        kind, *rest = call(scope, name, args, kwargs)
        _send(out_fd, [nonce, kind, index, *rest])
    _send(out_fd, [nonce, "done"])
