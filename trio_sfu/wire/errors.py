"""The one exception that parsers of network bytes raise."""


class BadPacket(ValueError):
    """The bytes are not a valid packet of the kind they were parsed as.

    Every parser in :mod:`trio_sfu.wire` raises this and nothing else, whatever the bytes.
    """
