"""Signing in by a provider: what is kept while somebody is there, and who they turn out to be."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass

from app.passwords import new_secret


@dataclass(frozen=True)
class Pending:
    """What a browser keeps, in a cookie, while it is at the provider. then: where to go afterwards; linking: the hash
    of the session whose account is to be linked, empty for signing in."""

    state: str
    nonce: str
    verifier: str
    then: str
    linking: str = ""

    @classmethod
    def new(cls, then: str, linking: str = "") -> "Pending":
        return cls(new_secret(), new_secret(), new_secret(), then[:500], linking)

    def packed(self) -> str:
        return urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def read(cls, packed: str) -> "Pending | None":
        try:
            given = json.loads(urlsafe_b64decode(packed))
            made = cls(**given)
        except (ValueError, TypeError):
            return None
        texts = all(isinstance(value, str) for value in given.values())
        plain = texts and all(value.isprintable() for value in given.values())  # a lone surrogate is not
        return made if plain and made.state and made.nonce and made.verifier else None


@dataclass(frozen=True)
class Person:
    """issuer and subject are who it is; name is what to call them, as the provider says."""

    issuer: str
    subject: str
    name: str
