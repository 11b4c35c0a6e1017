"""A pickle that describes tensors, read as data: nothing is imported, called or built by its wish.

A PyTorch state dict is a pickle of {name: tensor}, each tensor a call of one of two known functions
on a reference to a block of bytes elsewhere. Python's own unpickler would import and call whatever a
file names, so it is not used: `pickletools` splits the file into instructions, and the loop below
knows the few that such a file consists of. A call of a known name becomes a `TensorEntry`; any
other name, and any other instruction, ends the reading.

The work is bounded by the file: no value is compared, hashed or printed as a whole, since a few bytes
can describe one with more parts than there are atoms.
"""

import dataclasses
import pickletools
import warnings
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from circuitjax.core.files import cut, reason

__all__ = ["MOST_PICKLE", "TensorEntry", "read_entries"]

#: Bytes of a pickle: some 100,000 tensors.
MOST_PICKLE = 2**25
_MOST_AXES = 8
_MOST_COUNT = 2**48

# Storage classes and the types of their numbers.
_STORAGES = MappingProxyType(
    {
        "torch FloatStorage": "float32",
        "torch HalfStorage": "float16",
        "torch BFloat16Storage": "bfloat16",
        "torch DoubleStorage": "float64",
        "torch LongStorage": "int64",
        "torch IntStorage": "int32",
        "torch ShortStorage": "int16",
        "torch CharStorage": "int8",
        "torch ByteStorage": "uint8",
        "torch BoolStorage": "bool",
        "torch ComplexFloatStorage": "complex64",
        "torch ComplexDoubleStorage": "complex128",
    }
)
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = frozenset({*_STORAGES, _DICT, _TENSOR, _PARAMETER})
_CONSTANTS = MappingProxyType({"NONE": None, "NEWTRUE": True, "NEWFALSE": False})
_TUPLES = MappingProxyType({"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3})
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_MARK = object()


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """Where the numbers of a tensor lie: entry (i, j, ...) at offset + i * stride_0 + j * stride_1...

    Attributes:
      dtype: as PyTorch calls it, such as `float32`.
      storage: name of the block of bytes.
      storage_size: numbers in that block.
      offset: number of the tensor's first entry in the block.
      shape, strides: one of each per axis, in numbers.
    """

    dtype: str
    storage: str
    storage_size: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle would have imported."""

    text: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    size: int


def read_entries(data: bytes) -> dict[str, TensorEntry]:
    """The tensors a state dict's pickle describes, in its order.

    Args:
      data: the pickle; protocols 2 to 5 as `torch.save` writes them.

    Raises:
      ValueError: it names anything but what tensors are made of, holds another value than
        {str: tensor}, or is broken. Nothing it asks for has happened then.
    """
    if len(data) > MOST_PICKLE:
        raise ValueError(f"its pickle has {len(data)} bytes, more than the {MOST_PICKLE} read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that no text of Python has
            found = _run(data)
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # what no pickler writes
        raise ValueError(
            f"its pickle is broken ({type(error).__name__}: {reason(error)})"
        ) from None
    if type(found) is not dict:
        raise ValueError(f"it holds {_kind(found)}; it must be a state dict, {{name: tensor}}")
    for name, value in found.items():
        if type(value) is not TensorEntry:
            raise ValueError(f"its entry {cut(name)} is {_kind(value)}; all must be tensors")
    return found


def _kind(value: Any) -> str:
    if type(value) is _Name:
        return f"the name {value.text}"
    return "a tensor" if type(value) is TensorEntry else f"a {type(value).__name__}"


def _instructions(data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(data):
            yield opcode.name, argument
    except (ValueError, UnicodeDecodeError) as error:  # truncated, or no pickle
        raise ValueError(f"its pickle is broken ({reason(error)})") from None


def _run(data: bytes) -> Any:
    """The value at the end of the instructions."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        start = len(stack) - 1
        while stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError("no mark")
        items = stack[start + 1 :]
        del stack[start:]
        return items

    for code, argument in _instructions(data):
        if code in _NUMBERS or code in _TEXTS:
            stack.append(argument)
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code == "MARK":
            stack.append(_MARK)
        elif code in _TUPLES:
            start = len(stack) - _TUPLES[code]
            if start < 0:
                raise IndexError("stack is empty")
            stack[start:] = [tuple(stack[start:])]
        elif code == "TUPLE":
            stack.append(tuple(to_mark()))
        elif code == "EMPTY_DICT":
            stack.append({})
        elif code in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if code == "SETITEM" else to_mark()
            if len(items) % 2:
                raise TypeError("a name without a value")
            for key, value in zip(items[::2], items[1::2], strict=True):
                _own_dict(stack[-1])[_text(key)] = value
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code in ("GLOBAL", "STACK_GLOBAL"):
            if code == "STACK_GLOBAL":
                argument = f"{_text(stack.pop(-2))} {_text(stack.pop())}"
            stack.append(_known(argument))
        elif code == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif code == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments))
        elif code == "BUILD":  # attributes of the dict, such as the versions of its modules
            stack.pop()
            _own_dict(stack[-1])
        elif code == "STOP":
            return stack.pop()
        elif code not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle has the instruction {code}, which no state dict needs")
    raise IndexError("no end")


def _known(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(
            f"it asks for {name.replace(' ', '.')[:200]!r}, which is no part of a tensor: it was "
            "refused and nothing was run; save the model as a plain state dict"
        )
    return _Name(name)


def _own_dict(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise TypeError(f"{_kind(value)} where a dict belongs")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{_kind(value)} where a name belongs")
    return value


def _storage(reference: Any) -> _Storage:
    """What ("storage", its class, its key, device, size) refers to."""
    if type(reference) is not tuple or len(reference) != 5 or _text(reference[0]) != "storage":
        raise TypeError("a reference that is no storage")
    _, kind, key, _, size = reference
    if type(kind) is not _Name or kind.text not in _STORAGES:
        raise TypeError(f"a storage of {_kind(kind)}")
    return _Storage(_STORAGES[kind.text], _text(key), _count(size))


def _call(name: Any, arguments: Any) -> Any:
    """What a known name makes of its arguments."""
    text = name.text if type(name) is _Name else None
    if type(arguments) is not tuple:
        raise TypeError("a call without arguments")
    if text == _DICT and not arguments:
        return {}
    if text == _PARAMETER and arguments and type(arguments[0]) is TensorEntry:
        return arguments[0]
    if text == _TENSOR and len(arguments) >= 4 and type(arguments[0]) is _Storage:
        storage, offset, shape, strides = arguments[:4]
        if type(shape) is not tuple or type(strides) is not tuple or len(shape) > _MOST_AXES:
            raise TypeError("a tensor whose shape and strides are not a few numbers")
        if len(shape) != len(strides):
            raise TypeError("a tensor with more axes than strides")
        return TensorEntry(
            dtype=storage.dtype,
            storage=storage.key,
            storage_size=storage.size,
            offset=_count(offset),
            shape=tuple(_count(size) for size in shape),
            strides=tuple(_count(step) for step in strides),
        )
    raise TypeError(f"a call of {_kind(name)}")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise TypeError(f"{cut(value, 60)} where a count belongs")
    return value
