"""Passwords and secrets: how they are hashed, made and compared."""

import hashlib
import secrets
from functools import cache

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from app.errors import BadRequest

SHORTEST, LONGEST = 10, 1000  # characters
_HASHER = PasswordHash((Argon2Hasher(),))


def check_password(password: str) -> None:
    """
    Raises:
        BadRequest: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadRequest(
            f"The password has {len(password)} characters; {SHORTEST} to {LONGEST:,} are wanted.", field="password"
        )


def hashed_password(password: str) -> str:
    """With argon2id, its parameters and a salt of its own.

    Raises:
        BadRequest: it is too short or too long.
    """
    check_password(password)
    return _HASHER.hash(_bytes(password))


def verify(password: str, known: str | None) -> tuple[bool, str | None]:
    """Whether it is the password, and the hash to keep instead where that was made with older parameters. Without one
    it takes as long to say no."""
    try:
        fits, anew = _HASHER.verify_and_update(_bytes(password[:LONGEST]), known or _nobodys())
    except UnknownHashError:
        fits, anew = False, None
    return (fits, anew) if known else (False, None)


@cache
def _nobodys() -> str:
    return _HASHER.hash(secrets.token_bytes(32))


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")


def new_secret(prefix: str = "") -> str:
    """256 random bits, as an address can hold them."""
    return prefix + secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """What is kept of a secret that is random itself: there is nothing to guess, so no salt and no delay are needed."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
