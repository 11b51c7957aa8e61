"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable


def in_bytes(size: float) -> str:
    """A size, such as `1.41 MB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def in_short(number: float) -> str:
    """A count, such as `343.12 k`."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.2f}{unit}"
        number /= 1000
    return f"{number:.2f} G"


def in_milliseconds(seconds: float) -> str:
    """A time, such as `1.033 ms`."""
    shown = seconds * 1e3
    form = ".2g" if shown < 0.1 else ".3f" if shown < 100 else ".1f"
    return f"{shown:{form}} ms"


def change(before: float, after: float) -> str:
    """By which share something changed, such as `-38.2%`; nothing where it was nothing."""
    return f"{after / before - 1:+.1%}" if before else ""


def before_and_after(text: Callable[[float], str], before: float, after: float) -> tuple[str, ...]:
    """Both as text, and by which share it changed."""
    return text(before), text(after), change(before, after)
