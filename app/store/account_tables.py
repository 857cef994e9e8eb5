"""Who may sign in, and by what: of passwords, sessions, links and tokens the hashes alone are kept."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.store.metadata import metadata

account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password", Text),  # argon2; NULL where there is none
    Column("issuer", Text),
    Column("subject", Text),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("issuer", "subject"),
    Index("account_by_name", text("lower(name)"), unique=True),
)

account_session = Table(
    "account_session",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires", DateTime(timezone=True), nullable=False),
    Index("account_session_by_account", "account_id"),
)

# Used once: an invitation makes an account of ``role``; one with an ``account_id`` sets that account's password.
account_link = Table(
    "account_link",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("account_id", ForeignKey("account.id", ondelete="CASCADE")),
    Column("role", Text),
    Column("made_by", Text, nullable=False),
    Column("maker_id", ForeignKey("account.id", ondelete="CASCADE")),  # NULL: the command line
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires", DateTime(timezone=True), nullable=False),
    Column("used", DateTime(timezone=True)),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("account_id", ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires", DateTime(timezone=True)),
    Column("used", DateTime(timezone=True)),
    Index("api_token_by_account", "account_id"),
)

share = Table(
    "share",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("account_id", ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("address", Text, nullable=False),  # of the page
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires", DateTime(timezone=True), nullable=False),
    Index("share_by_account", "account_id"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("account_id", ForeignKey("account.id", ondelete="SET NULL")),
    Column("who", Text, nullable=False),
    Column("client", Text, nullable=False, server_default=""),
    Column("action", Text, nullable=False),
    Column("address", Text, nullable=False, server_default=""),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
)
