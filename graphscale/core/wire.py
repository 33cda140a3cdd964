"""The protobuf wire format of ONNX files, as far as large tensors need it.

Parsing a model with protobuf holds every weight in memory two or three times. The two functions
here let weights stay where they are: `detach` reads a file without its large tensors and leaves
external-data references into that same file in their place; `attach` turns such references back
into inline data whose bytes the caller streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message -> {field number: message that the field holds}, for all ways that lead to a TensorProto.
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_MAX_DEPTH = 100  # of messages in messages; protobuf's own limit
_SMALL = 1024  # bytes; a message below this size cannot hold a tensor worth detaching

Piece = bytes | memoryview | int  # an int stands for the bytes of the tensor of that number


class WireError(ValueError):
    """The bytes are no complete protobuf message."""


def detach(data: memoryview, location: str) -> bytes:
    """Serialized ModelProto `data` without its large raw tensors.

    Each tensor whose raw_data has 1 KiB or more refers instead to `location` (external data) at the
    offset where its bytes stand in `data`.

    Raises:
        WireError: `data` ends early, is no protobuf message, or nests messages too deeply.
    """

    def tensor(start: int, end: int) -> list[Piece] | None:
        for number, _, value, stop in _fields(data, start, end):
            if number == _RAW_DATA and stop - value >= _SMALL:
                kept = [
                    data[first:last]
                    for other, first, _, last in _fields(data, start, end)
                    if other not in (_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION)
                ]
                entries = {"location": location, "offset": value, "length": stop - value}
                return [*kept, *_external_entries(entries), _key(_DATA_LOCATION, _VARINT) + b"\x01"]
        return None

    pieces = _rewrite(data, 0, len(data), "model", tensor)
    return b"".join(pieces) if pieces is not None else bytes(data)


def attach(skeleton: bytes, location: str, sizes: list[int]) -> list[Piece]:
    """Pieces of a serialized ModelProto in which references to `location` are inline again.

    A tensor of `skeleton` that refers to external data at `location` with offset i gets raw_data of
    sizes[i] bytes; the integer i stands for those bytes among the pieces.
    """
    data = memoryview(skeleton)

    def tensor(start: int, end: int) -> list[Piece] | None:
        kept: list[Piece] = []
        entries: dict[bytes, bytes] = {}
        for number, first, value, stop in _fields(data, start, end):
            if number == _EXTERNAL_DATA:
                texts = {n: bytes(data[v:s]) for n, _, v, s in _fields(data, value, stop)}
                entries[texts.get(1, b"")] = texts.get(2, b"")
            elif number != _DATA_LOCATION:
                kept.append(data[first:stop])
        if entries.get(b"location") != location.encode():
            return None
        index = int(entries[b"offset"])
        return [*kept, _key(_RAW_DATA, _BYTES) + _varint(sizes[index]), index]

    pieces = _rewrite(data, 0, len(data), "model", tensor, sizes)
    return pieces if pieces is not None else [skeleton]


def size_of(pieces: list[Piece], sizes: list[int]) -> int:
    """Bytes that `pieces` take when written."""
    return sum(sizes[piece] if isinstance(piece, int) else len(piece) for piece in pieces)


def _rewrite(
    data: memoryview,
    start: int,
    end: int,
    message: str,
    tensor: Callable[[int, int], list[Piece] | None],
    sizes: list[int] | None = None,
    depth: int = 0,
) -> list[Piece] | None:
    """The message at data[start:end] with its tensors replaced; None where nothing changes."""
    if message == "tensor":
        return tensor(start, end)
    if depth > _MAX_DEPTH:
        raise WireError(f"messages in messages, more than {_MAX_DEPTH} deep")
    # `attach` must look into small messages too: its tensors are mere references by now.
    smallest = 0 if sizes is not None else _SMALL
    children = _CHILDREN[message]
    pieces: list[Piece] = []
    done = start
    for number, first, value, stop in _fields(data, start, end):
        if number not in children or stop - value < smallest:
            continue
        inner = _rewrite(data, value, stop, children[number], tensor, sizes, depth + 1)
        if inner is None:
            continue
        pieces += [data[done:first], _key(number, _BYTES) + _varint(size_of(inner, sizes or []))]
        pieces += inner
        done = stop
    if done == start:
        return None
    return [*pieces, data[done:end]]


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start of the key, start of the value, end of the value) of each field."""
    at = start
    while at < end:
        first = at
        key, at = _read_varint(data, at, end)
        kind = key & 7
        if kind == _VARINT:
            value = at
            _, at = _read_varint(data, at, end)
        elif kind == _BYTES:
            length, value = _read_varint(data, at, end)
            at = value + length
        elif kind in (_FIXED64, _FIXED32):
            value = at
            at += 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"unknown wire type {kind} at byte {first}")
        if at > end:
            raise WireError(f"the field at byte {first} ends {at - end} bytes behind its message")
        yield key >> 3, first, value, at


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise WireError(f"unfinished number at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _external_entries(entries: dict[str, object]) -> list[bytes]:
    """TensorProto.external_data fields, one StringStringEntryProto per entry."""
    fields = []
    for name, value in entries.items():
        entry = b"".join(
            _key(number, _BYTES) + _varint(len(text)) + text
            for number, text in ((1, name.encode()), (2, str(value).encode()))
        )
        fields.append(_key(_EXTERNAL_DATA, _BYTES) + _varint(len(entry)) + entry)
    return fields
