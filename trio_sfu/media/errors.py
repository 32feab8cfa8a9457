"""The one exception that negotiation and the media objects raise for what a client got wrong.

Anybody may catch it; the signalling layer turns it into an ``{error, code}`` reply.
"""

from typing import Literal

MediaErrorCode = Literal[
    "invalid-rtp-parameters",
    "invalid-rtp-capabilities",
    "invalid-dtls-parameters",
    "unsupported-codec",
    "duplicate-ssrc",
    "cannot-consume",
]


class MediaError(Exception):
    """A request about media that cannot be carried out because of what it asks for.

    ``code`` is kebab-case, for programs; ``message`` is a sentence, for a person. Neither holds
    anything but what the client itself sent. The codes raised by negotiation are those of
    :data:`MediaErrorCode`; other media objects may add their own.
    """

    def __init__(self, code: MediaErrorCode | str, message: str) -> None:
        super().__init__(message)
        self.code: str = code
        self.message = message

    def __repr__(self) -> str:
        return f"MediaError({self.code!r}, {self.message!r})"
