"""Numbers with as many digits as they deserve."""

import math

DASH = "–"
MINUS = "−"


def decimals(spread: float, digits: int = 2) -> int:
    """Decimal places that show ``digits`` significant digits of ``spread``."""
    if not math.isfinite(spread) or spread <= 0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(spread)))


def significant(value: float, digits: int = 4) -> str:
    """``value`` to ``digits`` significant digits; powers of ten outside 1e-4 ... 1e5."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    size = abs(value)
    if not 1e-4 <= size < 1e5:
        return _signed(f"{value:.{digits - 1}e}")
    exponent = int(f"{size:.{digits - 1}e}".split("e")[1])  # of the rounded value
    return _signed(f"{value:.{max(0, digits - 1 - exponent)}f}")


def plus_minus(mean: float, spread: float, unit: str = "") -> str:
    """``76.91 ± 0.94``: percent with two decimals, all else with two digits of the spread."""
    if mean is None or not math.isfinite(mean):
        return DASH
    known = spread is not None and math.isfinite(spread)
    if unit == "%":
        text = _signed(f"{mean:.2f}")
        return f"{text} ± {spread:.2f}" if known else text
    if not known or spread == 0:
        return significant(mean)
    places = decimals(spread)
    if places > 8 or abs(mean) >= 1e6 or spread < 1e-6 * abs(mean):
        return f"{significant(mean)} ± {significant(spread, 2)}"
    return f"{_signed(f'{mean:.{places}f}')} ± {spread:.{places}f}"


def signed(value: float, unit: str = "") -> str:
    """``+5.17``: a gain; percentage points with two decimals, all else to three digits."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value):.2f}" if unit == "%" else significant(abs(value), 3)
    return ("+" if value >= 0 else MINUS) + text


def percent(value: float) -> str:
    """``+12.3 %``: a relative change."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{'+' if value >= 0 else MINUS}{abs(value):.1f} %"


def ratio(value: float) -> str:
    """``4.75×``."""
    if value is None or not math.isfinite(value):
        return DASH
    return significant(value, 3) + "×"


def _signed(text: str) -> str:
    """A typographic minus before a negative number; the exponent keeps its hyphen."""
    return MINUS + text[1:] if text.startswith("-") else text


def interval(value: float, low: float, high: float, unit: str = "") -> str:
    """``+5.17 [+4.05, +6.29]`` for a difference, ``4.75× [3.9, 5.8]`` for a ``"ratio"``."""
    if value is None or not math.isfinite(value):
        return DASH
    known = math.isfinite(low) and math.isfinite(high)
    if unit == "ratio":
        text = ratio(value)
        return f"{text} [{significant(low, 3)}, {significant(high, 3)}]" if known else text
    if not known:
        return signed(value, unit)
    places = 2 if unit == "%" else max(decimals((high - low) / 2), 0)
    if places > 8 or max(abs(low), abs(high)) >= 1e6:
        return f"{signed(value, unit)} [{signed(low, unit)}, {signed(high, unit)}]"
    ends = [f"{'+' if x >= 0 else MINUS}{abs(x):.{places}f}" for x in (value, low, high)]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]"
