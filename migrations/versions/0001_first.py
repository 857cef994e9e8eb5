"""Subjects, corpora, SAEs, harvests, latents and examples."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = """
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE subject (
    id serial PRIMARY KEY,
    name text NOT NULL UNIQUE,
    path text NOT NULL,
    facts jsonb NOT NULL
);

CREATE TABLE corpus (
    id serial PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL UNIQUE,
    context integer NOT NULL,
    sequences integer NOT NULL,
    documents integer NOT NULL,
    tokens bigint NOT NULL
);

CREATE TABLE sequence (
    corpus_id integer NOT NULL REFERENCES corpus (id) ON DELETE CASCADE,
    id integer NOT NULL,
    token_ids integer[] NOT NULL,
    document text NOT NULL,
    PRIMARY KEY (corpus_id, id)
);

CREATE TABLE sae (
    id serial PRIMARY KEY,
    slug text NOT NULL,
    revision text NOT NULL,
    subject_id integer NOT NULL REFERENCES subject (id),
    reads text[] NOT NULL,
    writes text[] NOT NULL,
    architecture text NOT NULL,
    d_in integer NOT NULL,
    n_latents integer NOT NULL,
    signed integer NOT NULL,
    config jsonb NOT NULL,
    path text NOT NULL,
    sha256 text NOT NULL,
    UNIQUE (slug, revision)
);

CREATE TABLE harvest (
    sae_id integer PRIMARY KEY REFERENCES sae (id) ON DELETE CASCADE,
    corpus_id integer NOT NULL REFERENCES corpus (id),
    parameters jsonb NOT NULL,
    metrics jsonb NOT NULL,
    density_edges real[] NOT NULL,
    density_counts integer[] NOT NULL,
    tokens bigint NOT NULL,
    dead integer NOT NULL,
    seconds double precision NOT NULL,
    finished timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE latent (
    sae_id integer NOT NULL,
    index integer NOT NULL,
    fired bigint NOT NULL,
    density real NOT NULL,
    mean real NOT NULL,
    std real NOT NULL,
    maximum real NOT NULL,
    minimum real NOT NULL,
    histogram_first smallint NOT NULL,
    histogram integer[] NOT NULL,
    histogram_negative integer[] NOT NULL,
    promoted_ids integer[] NOT NULL,
    promoted_logits real[] NOT NULL,
    suppressed_ids integer[] NOT NULL,
    suppressed_logits real[] NOT NULL,
    neighbour_ids integer[] NOT NULL,
    neighbour_cosines real[] NOT NULL,
    decoder_norm real NOT NULL,
    encoder_decoder_cosine real NOT NULL,
    label text NOT NULL,
    label_source text NOT NULL,
    label_score real,
    PRIMARY KEY (sae_id, index)
) PARTITION BY LIST (sae_id);

CREATE INDEX latent_by_density ON latent (sae_id, density, index);
CREATE INDEX latent_by_maximum ON latent (sae_id, maximum, index);

CREATE TABLE example (
    sae_id integer NOT NULL,
    latent integer NOT NULL,
    sign smallint NOT NULL,
    interval smallint NOT NULL,
    rank smallint NOT NULL,
    sequence_id integer NOT NULL,
    position integer NOT NULL,
    start integer NOT NULL,
    activation real NOT NULL,
    offsets smallint[] NOT NULL,
    shares bytea NOT NULL,
    PRIMARY KEY (sae_id, latent, sign, interval, rank)
) PARTITION BY LIST (sae_id);
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";"):
        if statement.strip():
            op.execute(statement)
