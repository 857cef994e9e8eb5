"""Explanations of latents, what they were scored on and how, people's edits and votes, and requests to LLMs."""

from alembic import op

revision = "0012"
down_revision = "0011"

STATEMENTS = (
    "ALTER TABLE latent ADD COLUMN explanation_id bigint",
    "ALTER TABLE latent ADD COLUMN harvest_label text",
    "ALTER TABLE latent ADD COLUMN harvest_label_source text",
    "CREATE SEQUENCE explanation_id AS bigint",
    "CREATE SEQUENCE example_set_id AS bigint",
    "CREATE SEQUENCE score_id AS bigint",
    """
    CREATE TABLE explanation (
        sae_id integer NOT NULL,
        id bigint NOT NULL DEFAULT nextval('explanation_id'),
        latent integer NOT NULL,
        sign smallint NOT NULL DEFAULT 1,
        method text NOT NULL,
        version integer NOT NULL DEFAULT 1,
        model text,
        author text,
        parameters jsonb NOT NULL DEFAULT '{}',
        text text NOT NULL,
        label text NOT NULL,
        rule jsonb,
        raw text,
        status text NOT NULL DEFAULT 'ok',
        made timestamptz NOT NULL DEFAULT now(),
        words tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED,
        embedding halfvec(384),
        PRIMARY KEY (sae_id, id)
    ) PARTITION BY LIST (sae_id)
    """,
    "CREATE INDEX explanation_of_latent ON explanation (sae_id, latent, id)",
    "CREATE INDEX explanation_by_method ON explanation (sae_id, method, latent)",
    "CREATE INDEX explanation_by_words ON explanation USING gin (words)",
    "CREATE INDEX explanation_by_meaning ON explanation USING hnsw (embedding halfvec_cosine_ops)",
    """
    CREATE TABLE explanation_edit (
        sae_id integer NOT NULL REFERENCES sae (id) ON DELETE CASCADE,
        explanation_id bigint NOT NULL,
        number integer NOT NULL,
        text text NOT NULL,
        author text NOT NULL,
        made timestamptz NOT NULL,
        PRIMARY KEY (sae_id, explanation_id, number)
    )
    """,
    """
    CREATE TABLE explanation_vote (
        sae_id integer NOT NULL REFERENCES sae (id) ON DELETE CASCADE,
        explanation_id bigint NOT NULL,
        voter text NOT NULL,
        value smallint NOT NULL CHECK (value IN (-1, 1)),
        made timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (sae_id, explanation_id, voter)
    )
    """,
    """
    CREATE TABLE example_set (
        sae_id integer NOT NULL,
        id bigint NOT NULL DEFAULT nextval('example_set_id'),
        latent integer NOT NULL,
        sign smallint NOT NULL DEFAULT 1,
        split text NOT NULL,
        sample text NOT NULL,
        seed integer NOT NULL,
        width smallint NOT NULL,
        hash text NOT NULL,
        sequences integer[] NOT NULL,
        starts smallint[] NOT NULL,
        kinds smallint[] NOT NULL,
        intervals smallint[] NOT NULL,
        peaks smallint[] NOT NULL,
        activations real[] NOT NULL,
        PRIMARY KEY (sae_id, id)
    ) PARTITION BY LIST (sae_id)
    """,
    "CREATE INDEX example_set_of_latent ON example_set (sae_id, latent, sign, split)",
    """
    CREATE TABLE score (
        sae_id integer NOT NULL,
        id bigint NOT NULL DEFAULT nextval('score_id'),
        explanation_id bigint NOT NULL,
        latent integer NOT NULL,
        scorer text NOT NULL,
        version integer NOT NULL DEFAULT 1,
        model text,
        example_set_id bigint,
        status text NOT NULL DEFAULT 'ok',
        headline real,
        n_pos integer NOT NULL,
        n_neg integer NOT NULL,
        n_failed integer NOT NULL DEFAULT 0,
        tp integer,
        fp integer,
        tn integer,
        fn integer,
        balanced_accuracy real,
        balanced_accuracy_random real,
        balanced_accuracy_hard real,
        "precision" real,
        recall real,
        f1 real,
        auroc real,
        auprc real,
        correlation real,
        ci_low real,
        ci_high real,
        control real,
        facts jsonb NOT NULL DEFAULT '{}',
        made timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (sae_id, id)
    ) PARTITION BY LIST (sae_id)
    """,
    "CREATE INDEX score_of_latent ON score (sae_id, latent)",
    "CREATE INDEX score_of_explanation ON score (sae_id, explanation_id)",
    "CREATE INDEX score_by_scorer ON score (sae_id, scorer)",
    """
    CREATE TABLE score_example (
        sae_id integer NOT NULL,
        score_id bigint NOT NULL,
        predictions boolean[] NOT NULL,
        probabilities real[],
        presented text[],
        errors text[],
        PRIMARY KEY (sae_id, score_id)
    ) PARTITION BY LIST (sae_id)
    """,
    """
    CREATE TABLE score_summary (
        sae_id integer NOT NULL REFERENCES sae (id) ON DELETE CASCADE,
        method text NOT NULL,
        model text NOT NULL,
        scorer text NOT NULL,
        facts jsonb NOT NULL,
        made timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (sae_id, method, model, scorer)
    )
    """,
    """
    CREATE TABLE llm_request (
        id bigserial PRIMARY KEY,
        key text NOT NULL UNIQUE,
        sae_id integer REFERENCES sae (id) ON DELETE SET NULL,
        latent integer,
        purpose text NOT NULL,
        base_url text NOT NULL,
        model text NOT NULL,
        prompt_version integer NOT NULL,
        request jsonb NOT NULL,
        state text NOT NULL DEFAULT 'waiting',
        attempts integer NOT NULL DEFAULT 0,
        response text,
        status integer,
        error text,
        prompt_tokens integer,
        completion_tokens integer,
        cost double precision,
        price_source text,
        latency real,
        made timestamptz NOT NULL DEFAULT now(),
        claimed timestamptz,
        answered timestamptz
    )
    """,
    "CREATE INDEX llm_request_open ON llm_request (id) WHERE state <> 'done'",
    "CREATE INDEX llm_request_of_sae ON llm_request (sae_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
