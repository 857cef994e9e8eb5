"""The words that accounts are made of."""

from typing import Literal, get_args

Role = Literal["viewer", "editor", "admin"]
Scope = Literal["read", "write", "admin"]
Visibility = Literal["private", "team", "public"]
ROLES: tuple[Role, ...] = get_args(Role)
