"""How numbers, their errors and durations are written on the screen."""

from __future__ import annotations

import math
from typing import Any


def format_compact(value: float | None = None, error: float | None = None, **_: Any) -> str:
    """value ± error, rounded to two digits of the error, whatever the size of the unit."""
    known = error is not None and math.isfinite(error) and error > 0
    return format_with_error(value, error, max(0, 1 - math.floor(math.log10(error))) if known else 3)  # type: ignore[arg-type]


def format_number(value: float | None, digits: int) -> str:
    """With so many decimals; empty for None and NaN."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.3e}"


def format_with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    """value ± error, both with so many decimals; the value alone where its error is not known."""
    known = value is not None and error is not None and math.isfinite(error)
    return format_number(value, digits) + (f" ± {format_number(error, digits)}" if known else "")


def format_to_error(value: float | None = None, error: float | None = None, **_: Any) -> str:
    """value ± error, rounded to two digits of the error."""
    from mixtura.folder.records import digits_of

    return format_with_error(value, error, digits_of(error))


def format_duration(seconds: float | None) -> str:
    """In seconds, minutes or hours; empty for None."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
