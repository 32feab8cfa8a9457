"""Payloads of Socket.IO events, already parsed from JSON, to typed requests.

handlers.py calls :func:`decode_payload`. It raises :class:`InvalidPayload` and nothing else, whatever
a client sent, and takes a bounded time for it.
"""

import re
from math import isfinite
from typing import Final, TypeVar

import msgspec

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 10_000  # a browser's RtpCapabilities have about 1,500
MAX_TEXT: Final = 256 * 1024  # characters in all strings and keys together
MAX_APP_DATA: Final = 4096  # bytes of JSON
MAX_INTEGER: Final = 2**63 - 1
MAX_SENTENCE: Final = 200  # characters

_T = TypeVar("_T", bound=msgspec.Struct)
# What msgspec says: "Expected `str`, got `int` - at `$.roomId`".
_WHERE: Final = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)


class InvalidPayload(Exception):
    """The payload is not what the event needs; the message is a sentence for its sender."""


def decode_payload(event: str, request_type: type[_T], args: list[object]) -> _T:
    """The request in an event's arguments: one object, or nothing at all.

    Nothing (no argument, or null) is an empty object. Raises :class:`InvalidPayload`.
    """
    if len(args) > 1:
        raise InvalidPayload(f"{event} takes one object, not {len(args)} arguments")
    payload = args[0] if args else None
    if payload is None:
        payload = {}
    if not isinstance(payload, dict):
        raise InvalidPayload(f"{event} takes an object")
    _check(event, payload)
    try:
        request = msgspec.convert(payload, request_type, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidPayload(_sentence(event, str(error))) from None
    app_data = getattr(request, "app_data", None)
    if app_data is not None and len(msgspec.json.encode(app_data)) > MAX_APP_DATA:
        raise InvalidPayload(f"{event}: `appData` is larger than {MAX_APP_DATA} bytes")
    return request


def _sentence(event: str, message: str) -> str:
    where = _WHERE.search(message)
    what = _WHERE.sub("", message)[:MAX_SENTENCE]  # it may quote the client
    what = what[:1].lower() + what[1:]
    if where is None or not where[1]:
        return f"{event}: {what}"
    return f"{event}: {what} in `{where[1][:MAX_SENTENCE]}`"


def _check(event: str, payload: object) -> None:
    """What the types cannot say: bounds of the whole, and plain JSON values only.

    Bytes (Socket.IO's binary attachments), numbers that are none, integers beyond 64 bits and lone
    surrogates cannot be passed on as JSON and msgpack.
    """
    values = 0
    text = 0
    todo: list[tuple[object, int]] = [(payload, 1)]
    while todo:
        value, depth = todo.pop()
        children: list[object] = []
        if isinstance(value, str):
            text += len(value)
            if text <= MAX_TEXT and not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise InvalidPayload(f"{event}: a string in it is not valid Unicode") from None
        elif isinstance(value, dict):
            if values + 2 * len(value) > MAX_VALUES:
                raise InvalidPayload(f"{event}: the payload has too many values")
            children.extend(value)
            children.extend(value.values())
        elif isinstance(value, list):
            if values + len(value) > MAX_VALUES:
                raise InvalidPayload(f"{event}: the payload has too many values")
            children = value
        elif isinstance(value, float):
            if not isfinite(value):
                raise InvalidPayload(f"{event}: a number in it is not finite")
        elif isinstance(value, int):
            if abs(value) > MAX_INTEGER:
                raise InvalidPayload(f"{event}: a number in it is too large")
        elif value is not None:
            raise InvalidPayload(f"{event}: binary data is not allowed in it")
        values += len(children)
        if text > MAX_TEXT:
            raise InvalidPayload(f"{event}: the payload has too much text")
        if children and depth >= MAX_DEPTH:
            raise InvalidPayload(f"{event}: the payload is nested too deep")
        todo.extend((child, depth + 1) for child in children)
