"""Maps of an SAE's latents: their places, clusters and tiles."""

from alembic import op

revision = "0011"
down_revision = "0010"

STATEMENTS = (
    """
    CREATE TABLE map (
        id serial PRIMARY KEY,
        sae_id integer NOT NULL REFERENCES sae (id) ON DELETE CASCADE,
        method text NOT NULL,
        "on" text NOT NULL,
        version text NOT NULL,
        parameters jsonb NOT NULL,
        facts jsonb NOT NULL,
        quality jsonb NOT NULL,
        placed integer NOT NULL,
        unplaced integer NOT NULL,
        clustered integer NOT NULL,
        frame double precision[] NOT NULL,
        raster bytea NOT NULL,
        seconds double precision NOT NULL,
        made timestamptz NOT NULL DEFAULT now(),
        UNIQUE (sae_id, method, "on")
    )
    """,
    """
    CREATE TABLE map_point (
        sae_id integer NOT NULL,
        map_id integer NOT NULL,
        latent integer NOT NULL,
        layout_x real NOT NULL,
        layout_y real NOT NULL,
        x integer NOT NULL,
        y integer NOT NULL,
        rank integer NOT NULL,
        z smallint NOT NULL,
        region integer,
        cluster integer,
        PRIMARY KEY (sae_id, map_id, latent)
    ) PARTITION BY LIST (sae_id)
    """,
    "CREATE INDEX map_point_by_region ON map_point (sae_id, map_id, region, rank)",
    "CREATE INDEX map_point_by_cluster ON map_point (sae_id, map_id, cluster, rank)",
    """
    CREATE TABLE map_cluster (
        map_id integer NOT NULL REFERENCES map (id) ON DELETE CASCADE,
        level smallint NOT NULL,
        id integer NOT NULL,
        parent integer,
        name text NOT NULL,
        terms text[] NOT NULL,
        scores real[] NOT NULL,
        size integer NOT NULL,
        alive integer NOT NULL,
        density real,
        centre integer NOT NULL,
        x integer NOT NULL,
        y integer NOT NULL,
        PRIMARY KEY (map_id, level, id)
    )
    """,
    """
    CREATE TABLE map_tile (
        map_id integer NOT NULL REFERENCES map (id) ON DELETE CASCADE,
        z smallint NOT NULL,
        x integer NOT NULL,
        y integer NOT NULL,
        points bytea NOT NULL,
        colours bytea NOT NULL,
        PRIMARY KEY (map_id, z, x, y)
    )
    """,
    # Places and colours are read in part, and compress little.
    "ALTER TABLE map_tile ALTER points SET STORAGE EXTERNAL, ALTER colours SET STORAGE EXTERNAL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
