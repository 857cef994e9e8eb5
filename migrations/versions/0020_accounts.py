"""Accounts: sessions, links that are used once, tokens, shares, the audit log; whose lists, notes and runs are."""

from alembic import op

revision = "0020"
down_revision = "0018"

STATEMENTS = (
    """
    CREATE TABLE account (
        id serial PRIMARY KEY,
        name text NOT NULL,
        role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
        password text,
        issuer text,
        subject text,
        disabled boolean NOT NULL DEFAULT false,
        made timestamptz NOT NULL DEFAULT now(),
        UNIQUE (issuer, subject)
    )
    """,
    "CREATE UNIQUE INDEX account_by_name ON account (lower(name))",
    """
    CREATE TABLE account_session (
        hash text PRIMARY KEY,
        account_id integer NOT NULL REFERENCES account (id) ON DELETE CASCADE,
        made timestamptz NOT NULL DEFAULT now(),
        expires timestamptz NOT NULL
    )
    """,
    "CREATE INDEX account_session_by_account ON account_session (account_id)",
    """
    CREATE TABLE account_link (
        id serial PRIMARY KEY,
        hash text NOT NULL UNIQUE,
        account_id integer REFERENCES account (id) ON DELETE CASCADE,
        role text CHECK (role IN ('viewer', 'editor', 'admin')),
        made_by text NOT NULL,
        maker_id integer REFERENCES account (id) ON DELETE CASCADE,
        made timestamptz NOT NULL DEFAULT now(),
        expires timestamptz NOT NULL,
        used timestamptz,
        CHECK ((account_id IS NULL) <> (role IS NULL))
    )
    """,
    """
    CREATE TABLE api_token (
        id serial PRIMARY KEY,
        hash text NOT NULL UNIQUE,
        account_id integer NOT NULL REFERENCES account (id) ON DELETE CASCADE,
        name text NOT NULL,
        scope text NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
        made timestamptz NOT NULL DEFAULT now(),
        expires timestamptz,
        used timestamptz
    )
    """,
    "CREATE INDEX api_token_by_account ON api_token (account_id)",
    """
    CREATE TABLE share (
        id serial PRIMARY KEY,
        hash text NOT NULL UNIQUE,
        account_id integer NOT NULL REFERENCES account (id) ON DELETE CASCADE,
        address text NOT NULL,
        made timestamptz NOT NULL DEFAULT now(),
        expires timestamptz NOT NULL
    )
    """,
    "CREATE INDEX share_by_account ON share (account_id)",
    """
    CREATE TABLE audit (
        id bigserial PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        account_id integer REFERENCES account (id) ON DELETE SET NULL,
        who text NOT NULL,
        client text NOT NULL DEFAULT '',
        action text NOT NULL,
        address text NOT NULL DEFAULT '',
        detail jsonb NOT NULL DEFAULT '{}'
    )
    """,
    "ALTER TABLE list ADD COLUMN visibility text NOT NULL DEFAULT 'team'",
    "ALTER TABLE note ADD COLUMN visibility text NOT NULL DEFAULT 'team'",
    "ALTER TABLE inspection ADD COLUMN visibility text NOT NULL DEFAULT 'team'",
    "ALTER TABLE inspection ADD COLUMN owner_id integer",
    "CREATE INDEX list_by_owner ON list (owner_id)",
    "CREATE INDEX inspection_by_owner ON inspection (owner_id)",
    *(
        f"ALTER TABLE {table} ADD FOREIGN KEY (owner_id) REFERENCES account (id) ON DELETE SET NULL, "
        "ADD CHECK (visibility IN ('private', 'team', 'public'))"
        for table in ("list", "note", "inspection")
    ),
    # A list that others see keeps nothing of the text of a run that they may not.
    "UPDATE list_item SET label = '' WHERE reference LIKE 'run/%' "
    "AND substr(reference, 5) IN (SELECT id FROM inspection)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
