"""Everything the doctor looks at, in order."""

from collections.abc import Callable, Iterable, Iterator

from app.doctor.configuration import configuration
from app.doctor.finding import Finding, fault
from app.doctor.machine import assets, device, disk, port, services
from app.doctor.packages import packages, python
from app.doctor.stored import database
from app.errors import SaescopeError
from app.settings import Settings


def examination(settings: Settings, *, full: bool = False) -> Iterator[Finding]:
    """``full`` reads every file of models and SAEs again. What fails to be looked at is a fault of its own, and the
    rest is looked at all the same."""
    looks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", lambda: [python()]),
        ("packages", packages),
        ("settings", lambda: configuration(settings)),
        ("device", lambda: [device(settings)]),
        ("home", lambda: [disk(settings)]),
        ("assets", lambda: [assets()]),
        ("port", lambda: [port(settings)]),
        ("inference services", lambda: services(settings)),
        ("database", lambda: database(settings, full=full)),
    ]
    for what, look in looks:
        try:
            yield from look()
        except (SaescopeError, OSError, ImportError, ValueError) as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield fault(what, f"It could not be looked at: {told}", "Mend what it says, and start the doctor again.")
