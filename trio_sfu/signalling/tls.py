"""TLS for the front door: the context from files, and the handshake with its deadline."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

import trio


def load_tls_context(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """A server context (TLS 1.2 and up, HTTP/1.1) from PEM files.

    Raises OSError (ssl.SSLError is one) or ValueError where the files are no good.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, password=_no_password)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> NoReturn:
    # Without this OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


async def accept_tls(stream: trio.SocketStream, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream] | None:
    """The encrypted stream, its handshake done; None where the other side does not speak TLS as we do.

    The caller sets the deadline and, whatever comes out, closes ``stream``.
    """
    tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    try:
        await tls.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return None
    return tls
