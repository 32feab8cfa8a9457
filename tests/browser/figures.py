"""What browser tests measure: printed when all are done, whether or not output is captured."""

__all__ = ["FIGURES", "note"]

FIGURES: list[str] = []


def note(figure: str) -> None:
    """Have a measured figure printed at the end."""
    FIGURES.append(figure)
