"""Browsers that have signed in to an account before: those who try its password elsewhere do not slow them down.

The cookie says no more than that. It is signed with the hash of the account's password, so that a new password ends it.
"""

import hmac

from app.passwords import new_secret
from app.store.accounts import AccountRecord

DAYS = 400


def made(account: int, password: str) -> str:
    """The cookie of a browser that has just signed in; password: its hash."""
    nonce = new_secret()
    return f"{nonce}.{_signature(account, password, nonce)}"


def of(cookie: str, account: AccountRecord) -> bool:
    """Whether the browser signed in to this account before."""
    nonce, _, signature = cookie.partition(".")
    if account.password is None or not cookie.isascii():
        return False
    return hmac.compare_digest(signature, _signature(account.id, account.password, nonce))


def _signature(account: int, password: str, nonce: str) -> str:
    return hmac.new(password.encode(), f"device {account} {nonce}".encode(), "sha256").hexdigest()
