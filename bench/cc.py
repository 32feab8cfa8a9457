"""The benchmark's own C, compiled at run time where a compiler is there.

Owns the command line and a folder of what has been compiled, named by what it was made of. Called by whatever has C:
:mod:`bench.floor`, :mod:`bench.gauge`, :mod:`bench.native`. Nothing of it is part of the server.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["NoCompiler", "compiled"]

_FOLDER = Path(__file__).parent


class NoCompiler(Exception):
    """The sentence says what is missing, or what the compiler said."""


def compiled(source: str, *, shared: bool = False, crypto: bool = False) -> Path:
    """The program, or the shared library, made of ``bench/<source>``. Raises :class:`NoCompiler`.

    :param crypto: link libcrypto's run-time library; its headers are not needed.
    """
    if os.environ.get("BENCH_CC") == "none":
        raise NoCompiler("BENCH_CC=none")
    compiler = shutil.which(os.environ.get("BENCH_CC", "cc"))
    if compiler is None:
        raise NoCompiler("no C compiler")
    flags = ["-O2", "-std=gnu11", "-Wall", *(("-shared", "-fPIC") if shared else ())]
    libraries = ["-l:libcrypto.so.3"] if crypto else []
    digest = hashlib.sha256(" ".join([compiler, *flags, *libraries]).encode())
    for path in (_FOLDER / source, *sorted(_FOLDER.glob("*.h"))):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"trio-sfu-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise NoCompiler(f"{folder} is somebody else's")
    result = folder / f"{Path(source).stem}-{digest.hexdigest()[:16]}{'.so' if shared else ''}"
    if not result.exists():
        # Under a name of its own first: another run may compile the same.
        unfinished = result.with_suffix(f".{os.getpid()}")
        command = [compiler, *flags, "-o", str(unfinished), str(_FOLDER / source), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoCompiler(f"the compiler refused {source}: {done.stderr.strip()[-500:]}")
        unfinished.rename(result)
    return result
