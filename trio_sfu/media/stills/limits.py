"""How large a picture the codecs of this package repeat."""

from typing import Final

__all__ = ["MAX_MACROBLOCKS"]

# The largest picture that is worth a repeat (H.264 level 5.2): a repeat's size and cost grow with it.
MAX_MACROBLOCKS: Final = 36_864
