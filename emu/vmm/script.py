"""How does a user's Python file watch and change what the VMM does? Functions named after the hooks of
emu.vmm.policy, each optional, called after the policy that is there anyway.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emu.signals import EmuError, End, Fault, VirtualizationException
from emu.tdx.params import TdParams
from emu.view import Machine, Vcpu
from emu.vmm.devices.bus import Device
from emu.vmm.loader import Launch
from emu.vmm.policy import Call, Policy

HOOKS = {  # name: parameters
    "params": ("params",),
    "launch": ("launch",),
    "on_launched": ("machine",),
    "turn": ("vcpu", "instructions"),
    "on_call": ("call",),
    "on_answer": ("call",),
    "on_end": ("call", "end"),
}
CALL_HOOKS = ("on_call", "on_answer", "on_end")
PASSES = (EmuError, End, Fault, VirtualizationException)  # what a hook may raise on purpose


def _load(path: Path) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "tdforge_script", "__file__": str(path)}
    try:
        source = path.read_bytes()
    except OSError as error:
        raise EmuError(f"script {path}: {error.strerror}") from None
    try:
        exec(compile(source, str(path), "exec"), space)
    except SyntaxError as error:
        raise EmuError(f"script {path}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        raise _in_script(path, error) from None
    return space


def _in_script(path: Path, error: Exception) -> EmuError:
    """One line: the place in the script, and what went wrong there."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return EmuError(f"script {path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}")


def _hooks(path: Path) -> dict[str, Callable[..., Any]]:
    """The hook functions of a script. A public function that is no hook must be marked private or imported:
    a misspelt hook would otherwise never be called and never be missed.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name, value in _load(path).items():
        own = inspect.isfunction(value) and value.__code__.co_filename == str(path)
        if name.startswith("_") or not own:
            continue
        line = value.__code__.co_firstlineno
        if name not in HOOKS:
            known = ", ".join(HOOKS)
            raise EmuError(
                f"script {path}:{line}: {name} is not a hook; expected one of {known}, or a name with _"
            )
        if len(inspect.signature(value).parameters) != len(HOOKS[name]):
            raise EmuError(f"script {path}:{line}: expected {name}({', '.join(HOOKS[name])})")
        found[name] = value
    return found


class Script(Policy):
    """A policy with a user's functions on top. A function that is missing, or returns None where a value is
    is expected, changes nothing. EmuError: file and line of a mistake in it.
    """

    def __init__(self, path: Path, inner: Policy) -> None:
        self.path, self.inner = path, inner
        self.done = inner.done
        self.hooks = _hooks(path)
        self.done.append(f"script {path.name}: {', '.join(self.hooks) or 'no hooks'}")
        self.watches_calls = inner.watches_calls or any(name in self.hooks for name in CALL_HOOKS)

    def ask(self, name: str, *arguments: Any) -> Any:
        """What the script's hook returns, None if it has none."""
        hook = self.hooks.get(name)
        if hook is None:
            return None
        try:
            return hook(*arguments)
        except PASSES:
            raise
        except Exception as error:
            raise _in_script(self.path, error) from None

    def value_of(self, name: str, kind: type, default: Any, *arguments: Any) -> Any:
        """The hook's value, which must be of this type."""
        value = self.ask(name, *arguments)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise EmuError(f"script {self.path}: {name} returned {value!r}, expected {kind.__name__} or None")
        return value

    def params(self, params: TdParams) -> TdParams:
        given = self.inner.params(params)
        made: TdParams = self.value_of("params", TdParams, given, given)
        return made

    def launch(self, launch: Launch) -> Launch:
        given = self.inner.launch(launch)
        made: Launch = self.value_of("launch", Launch, given, given)
        return made

    def devices(self, board: tuple[Device, ...]) -> tuple[Device, ...]:
        return self.inner.devices(board)

    def on_launched(self, machine: Machine) -> None:
        self.inner.on_launched(machine)
        self.ask("on_launched", machine)

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        given = self.inner.turn(vcpu, instructions)
        made: int = self.value_of("turn", int, given, vcpu, given)
        if made < 0:
            raise EmuError(f"script {self.path}: turn returned {made}, expected 0 or more")
        return made

    def on_call(self, call: Call) -> int | None:
        refused = self.inner.on_call(call)
        if refused is not None:
            return refused
        status: int | None = self.value_of("on_call", int, None, call)
        return status

    def on_answer(self, call: Call) -> None:
        self.inner.on_answer(call)
        self.ask("on_answer", call)

    def on_end(self, call: Call, end: End) -> None:
        """A script's on_end returns True to resume the guest."""
        if self.ask("on_end", call, end) is not True:
            self.inner.on_end(call, end)
