"""Take large tensors out of serialized ONNX models, and put them back, without parsing the models.

Parsing a model with protobuf holds every weight in memory two or three times. Here weights stay
where they are: `detach` takes the bytes of a file and returns them without the large tensors, which
become external-data references into that same file. `attach` takes such bytes and returns pieces in
which the references are inline data again, whose bytes the caller streams.

In protobuf's wire format a message is a sequence of fields. A field is a key, which holds the
field's number and its wire type, and a value: a varint (7 bits per byte, the lowest first, the top
bit set in all bytes but the last), 4 or 8 bytes, or a length and as many bytes. A message in a
message is such bytes, so that a message that becomes shorter or longer changes the length of every
message around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_VARINT_BITS = 7  # per byte
_MAX_VARINT_BITS = 70  # of ten bytes, which hold 64 bits

# Message -> {field number: message that the field holds}, for all paths from a ModelProto to a
# TensorProto (onnx.proto numbers the fields).
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14  # fields of TensorProto
_MAX_DEPTH = 100  # of messages in messages; protobuf's own limit
_SMALL = 1024  # bytes; a message below this size cannot hold a tensor worth detaching

# A part of a serialized model; an integer i stands for the bytes of the i-th tensor.
Piece = bytes | memoryview | int


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
        """A TensorProto that refers to its raw data instead of holding them."""
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
        """A TensorProto that holds raw data instead of a reference."""
        kept: list[Piece] = []
        entries: dict[bytes, bytes] = {}
        for number, first, value, stop in _fields(data, start, end):
            if number == _EXTERNAL_DATA:
                # A StringStringEntryProto: field 1 is the key, field 2 the value.
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
    """The message at data[start:end] with its tensors replaced; None where nothing changes.

    Args:
        data: The serialized model.
        start, end: Where the message stands in it.
        message: Its kind, a key of `_CHILDREN` or 'tensor'.
        tensor: Called with start and end of each TensorProto; returns what takes its place, if
            anything does.
        sizes: Bytes of the tensors that pieces stand for; None from `detach`.
        depth: How many messages are around this one.
    """
    if message == "tensor":
        return tensor(start, end)
    if depth > _MAX_DEPTH:
        raise WireError(f"messages in messages, more than {_MAX_DEPTH} deep")
    # `attach` (with sizes) looks into small messages, too, because its tensors are references.
    smallest = 0 if sizes is not None else _SMALL
    children = _CHILDREN[message]
    pieces: list[Piece] = []
    done = start  # all before it is among the pieces
    for number, first, value, stop in _fields(data, start, end):
        if number not in children or stop - value < smallest:
            continue
        inner = _rewrite(data, value, stop, children[number], tensor, sizes, depth + 1)
        if inner is None:
            continue
        # What stands between the last change and this one, then the changed message's new length.
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
    """The number that starts at byte `at`, and the place behind it."""
    result = shift = 0
    while at < end and shift < _MAX_VARINT_BITS:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += _VARINT_BITS
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
