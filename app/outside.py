"""Which other servers may be asked. In team mode more people say what is fetched than run the machine, and from it one
reaches what they do not: metadata services, databases, machines of the network."""

from urllib.parse import SplitResult, urlsplit

from app.errors import AddressRefused
from app.settings import Settings

_PORTS = {"http": 80, "https": 443}


def check_outside(settings: Settings, url: str) -> None:
    """That in team mode ``url`` lies beneath SAESCOPE_LLM_URL, or an address in SAESCOPE_OUTSIDE.

    Raises:
        AddressRefused.
    """
    if not settings.team:
        return
    allowed = [one.strip() for one in (settings.llm_url, *settings.outside.split(",")) if one.strip()]
    asked = _split(url)
    if asked is None or not any(_beneath(asked, known) for one in allowed if (known := _split(one)) is not None):
        raise AddressRefused(
            f"{url[:200]} may not be asked from here in team mode; SAESCOPE_OUTSIDE lists what may.", url=url[:200]
        )


def _split(url: str) -> SplitResult | None:
    """None of what is no plain address: with a name or password in it, or a path that climbs."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    path = parts.path.lower().replace("%2e", ".")
    climbs = any(part in (".", "..") for part in path.split("/")) or any(one in path for one in ("%2f", "%5c", "%25"))
    plain = url.isprintable() and "\\" not in url and "@" not in parts.netloc and not climbs
    return parts if plain and parts.scheme in _PORTS and parts.hostname else None


def _beneath(asked: SplitResult, known: SplitResult) -> bool:
    same = _place(asked) == _place(known)
    root = known.path.rstrip("/")
    return same and (asked.path.rstrip("/") == root or asked.path.startswith(root + "/"))


def _place(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
