"""Which objects are alive: for tests of what must not be held on to."""

import gc
from typing import TypeVar

_T = TypeVar("_T")


def alive(kind: type[_T]) -> list[_T]:
    """All objects of exactly this class that the garbage collector knows, after a collection."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is kind]
