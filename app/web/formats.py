"""Numbers as pages show them."""


def percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def sig(value: float) -> str:
    """Three significant digits, without an exponent where that stays short."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def number(value: float) -> str:
    """A whole number with all its digits, else three significant ones; small shares without an exponent."""
    if value == int(value):
        return thousands(int(value))
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1 else sig(value)


def exact(value: float) -> str:
    """All its digits, as a form needs them."""
    return repr(value).removesuffix(".0")


def measured(value: float | None, tokens: int | None) -> str:
    """Three significant digits, or why there is no value: no tokens to measure on, or a number that is none."""
    if value is None:
        return "not defined" if tokens else "not measured"
    return sig(value)


def thousands(value: int) -> str:
    return f"{value:,}"


def duration(seconds: float) -> str:
    """``7 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
