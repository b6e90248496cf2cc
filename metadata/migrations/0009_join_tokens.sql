-- By a token a host joins the cluster, once. Its secret is nowhere: only the hash. No reference to hosts: who used it may be gone.
CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL CHECK (length(secret_hash) = 64),
    ends_ms INTEGER NOT NULL,
    used_by TEXT,
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
