"""Pickles of third-party data sets, read by a machine of our own that never runs foreign code.

A pickle is a program for a stack machine. Python's own may call any function, and even one that
knows numpy's constructors alone hands them states that the file chooses, which can make numpy
follow a forged pointer. Here the machine has only the instructions that lists, dictionaries,
strings, numbers and arrays need; the names of numpy's and torch's constructors stand for functions
of this module, which check what they are given and end in :func:`numpy.frombuffer`. No object of
numpy or torch ever sees a state from the file. Lengths are compared with what is left of the file,
and the work is bounded by its size: a container cannot be in two places, so none unfolds into more
than was read.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equiscape.errors import DataError, first_line
from equiscape.files.constructors import (
    Name,
    Refused,
    Unbuilt,
    global_name,
    persistent,
    plain_array,
    refuse,
    typed,
)

LARGEST = 2**31  # bytes of a pickle
SCALAR = (type(None), bool, int, float, str, bytes)
MARK = object()


def _flat(value: Any) -> bool:
    """Whether a value may be in two places: nothing in it can unfold."""
    if isinstance(value, tuple):
        return all(isinstance(v, SCALAR) for v in value)
    return not isinstance(value, list | dict | Unbuilt)


class Machine:
    """The stack machine: ``run`` executes one pickle of ``data``, from ``at`` to its STOP."""

    def __init__(self, data: bytes, at: int = 0):
        self.data, self.at = data, at
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.slot: dict[int, int] = {}  # height of an unbuilt array in the stack -> its memo

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            refuse("it is cut short")
        self.at += count
        return piece

    def number(self, code: str) -> Any:
        """The next number, by its ``struct`` code."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def line(self) -> bytes:
        """The next line of text, without its end."""
        end = self.data.find(b"\n", self.at, self.at + 4096)
        if end < 0:
            refuse("it is cut short")
        piece, self.at = self.data[self.at : end], end + 1
        return piece

    def pop(self) -> Any:
        """The top of the stack."""
        if not self.stack or self.stack[-1] is MARK:
            refuse("its stack is empty")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """What lies above the last mark, which goes too."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        return refuse("a mark is missing")

    def put(self, slot: int) -> None:
        """Remember the top of the stack in a place of the memo."""
        if not self.stack or self.stack[-1] is MARK:
            refuse("its stack is empty")
        self.memo[slot] = self.stack[-1]
        if isinstance(self.stack[-1], Unbuilt | np.dtype):
            self.slot[len(self.stack)] = slot

    def get(self, slot: int) -> None:
        """Push what a place of the memo holds."""
        value = self.memo.get(slot, MARK)
        if value is MARK or not _flat(value):
            refuse("one container in two places" if value is not MARK else "an empty place")
        self.slot.pop(len(self.stack) + 1, None)
        self.stack.append(value)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.slot.pop(len(self.stack) + 1, None)
        self.stack.append(value)

    def set_items(self, pairs: list[Any]) -> None:
        """Set keys and values of the dictionary on the stack."""
        target = self.pop()
        if not isinstance(target, dict) or len(pairs) % 2:
            refuse("items of no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2]):
            if not isinstance(key, str) and not (type(key) is int and abs(key) < 2**31):
                refuse("a dictionary whose keys are neither text nor numbers")
            target[key] = value
        self.stack.append(target)

    def extend(self, items: list[Any]) -> None:
        """Append to the list on the stack."""
        target = self.pop()
        if not isinstance(target, list):
            refuse("items of no list")
        target += items
        self.stack.append(target)

    def reduce(self) -> None:
        """Call the constructor on the stack with its arguments."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or function.build is None:
            refuse("a call of something that is no array's constructor")
        if not isinstance(arguments, tuple) or len(arguments) > 9:
            refuse("a call without arguments")
        self.push(function.build(*arguments))

    def build(self) -> None:
        """Give the object on the stack its state."""
        state, target = self.pop(), self.pop()
        if isinstance(target, np.dtype):
            value: Any = typed(target, state)
        elif isinstance(target, Unbuilt) and isinstance(state, tuple) and len(state) == 5:
            value = plain_array(*state[1:])
        else:
            refuse("a state of something that is no array")
        slot = self.slot.pop(len(self.stack) + 1, None)
        if slot is not None:
            self.memo[slot] = value
        self.stack.append(value)

    def run(self) -> Any:
        """The value that the pickle describes."""
        self.stack, self.memo, self.slot = [], {}, {}
        while True:
            code = self.take(1)
            if code == b".":
                value = self.pop()
                if self.stack or isinstance(value, Unbuilt):
                    refuse("it ends too early")
                return value
            step = STEPS.get(code)
            if step is None:
                refuse(f"the instruction {code!r}")
            step(self)


def _text(machine: Machine, size: int) -> str:
    return machine.take(size).decode("utf-8", "surrogatepass")


def _long(data: bytes) -> int:
    if len(data) > 32:
        refuse("a number of more than 256 bits")
    return int.from_bytes(data, "little", signed=True)


def _decimal(machine: Machine) -> Any:
    line = machine.line().removesuffix(b"L")
    if line in (b"00", b"01"):
        return line == b"01"
    return int(line) if len(line) < 80 else refuse("a number of more than 80 digits")


def _protocol(machine: Machine) -> None:
    if machine.number("<B") > 5:
        refuse("a later protocol than Python knows")


def _frame(machine: Machine) -> None:
    if machine.number("<Q") > len(machine.data) - machine.at:
        refuse("it is cut short")


def _tuple(count: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        items = [machine.pop() for _ in range(count)][::-1]
        machine.push(tuple(items))

    return step


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(global_name(module, name))


def _dictionary(machine: Machine) -> None:
    """The dictionary of the keys and values above the last mark."""
    pairs = machine.pop_to_mark()
    machine.push({})
    machine.set_items(pairs)


# fmt: off
STEPS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": _protocol,
    b"\x95": _frame,
    b"(": lambda m: m.stack.append(MARK),
    b"0": lambda m: m.pop(),
    b"1": lambda m: m.pop_to_mark(),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"I": lambda m: m.push(_decimal(m)),
    b"L": lambda m: m.push(_decimal(m)),
    b"\x8a": lambda m: m.push(_long(m.take(m.number("<B")))),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(m.number(">d")),
    b"\x8c": lambda m: m.push(_text(m, m.number("<B"))),
    b"X": lambda m: m.push(_text(m, m.number("<I"))),
    b"\x8d": lambda m: m.push(_text(m, m.number("<Q"))),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"U": lambda m: m.push(m.take(m.number("<B")).decode("latin-1")),
    b"T": lambda m: m.push(m.take(m.number("<I")).decode("latin-1")),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"l": lambda m: m.push(m.pop_to_mark()),
    b"d": _dictionary,
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.pop_to_mark()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"c": lambda m: m.push(global_name(m.line().decode(), m.line().decode())),
    b"\x93": _stack_global,
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"p": lambda m: m.put(_decimal(m)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"g": lambda m: m.get(_decimal(m)),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
    b"Q": lambda m: m.push(persistent(m.pop())),
}
# fmt: on


def parse(data: bytes) -> Any:
    """The value of one pickle.

    Raises:
        Refused: it is damaged, or holds more than builtins and plain arrays.
    """
    try:
        return Machine(data).run()
    except (ValueError, TypeError, struct.error, UnicodeError, OverflowError, IndexError) as error:
        raise Refused(str(error).splitlines()[0] if str(error) else "it is damaged") from None


def load_pickle(path: Path) -> Any:
    """Nested builtins and numpy arrays (tensors too) from a pickle; nothing else is ever built.

    Raises:
        DataError: the file is damaged, too large, or holds anything but those.
    """
    try:
        if Path(path).stat().st_size > LARGEST:
            raise Refused(f"it is larger than {LARGEST} bytes")
        return parse(Path(path).read_bytes())
    except (Refused, OSError, MemoryError) as error:
        reason = first_line(error)
        raise DataError(
            f"{path} is not a pickle of plain arrays ({reason}); fetch the published file."
        ) from None
