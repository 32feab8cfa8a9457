"""Names of files that belong to a room, and files that are there whole or not at all.

Used by what writes to disk in hls/. All of it blocks: it is called in worker threads.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".tmp"
#: Of the longest name that file systems take (255 bytes), room is left for suffixes.
MAX_NAME: Final = 200
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def room_name(room_id: str) -> str:
    """A room's id as the name of a file: ``[A-Za-z0-9_-]`` as they are, all else percent-encoded.

    Two ids never get one name, no name leaves its folder, and none is longer than MAX_NAME. An id that would
    be longer ends in ``~`` and a digest of it. ValueError for the empty id, which has no name.
    """
    if not room_id:
        raise ValueError("a room's id is not empty")
    octets = room_id.encode("utf-8", "surrogatepass")
    name = "".join(chr(octet) if octet in _SAFE else f"%{octet:02X}" for octet in octets)
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(octets).hexdigest()[:32]
    return f"{name[: MAX_NAME - 1 - len(digest)]}~{digest}"


def write_whole(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Make ``path`` hold ``data``; until then it holds what it held. Whoever reads sees one or the other.

    The bytes go to a temporary name in the same folder, which begins with a dot, and are renamed. ``sync`` also brings
    them to the disk before. OSError where that fails; the temporary file is removed then, if that is possible.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file.fileno(), data, 0)
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``: the system may take a part at a time. OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
