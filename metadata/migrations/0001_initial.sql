-- The first schema. Columns of each table: the record of its name in metadata/records.h, and `revision`, the mark of
-- compare-and-set. Ids are text, times milliseconds since 1970, flags 0 or 1. docs/metadata.md.

-- One row. `revision` grows with each writing transaction; a changed record takes its value.
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO store VALUES (1, 0);

CREATE TABLE hosts (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE CHECK (name <> ''),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;

CREATE TABLE instances (
    id TEXT PRIMARY KEY NOT NULL,
    host TEXT NOT NULL REFERENCES hosts (id),
    is_host INTEGER NOT NULL CHECK (is_host IN (0, 1)),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX instances_by_host ON instances (host);
CREATE UNIQUE INDEX instances_one_is_the_host ON instances (host) WHERE is_host = 1;

CREATE TABLE pools (
    id TEXT PRIMARY KEY NOT NULL,
    host TEXT NOT NULL REFERENCES hosts (id),
    path TEXT NOT NULL CHECK (substr(path, 1, 1) = '/'),
    kind TEXT NOT NULL CHECK (kind IN ('folder', 'device')),
    domain TEXT NOT NULL CHECK (domain <> ''),
    size_bytes INTEGER CHECK (size_bytes > 0),
    buffered INTEGER NOT NULL CHECK (buffered IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('adding', 'available', 'draining', 'removing', 'failed')),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    UNIQUE (host, path)
) STRICT;

CREATE TABLE volumes (
    id TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('creating', 'available', 'in-use', 'deleting', 'error')),
    size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
    block_bytes INTEGER NOT NULL CHECK (block_bytes IN (512, 4096)),
    replica_count INTEGER NOT NULL CHECK (replica_count BETWEEN 1 AND 3),
    durability TEXT NOT NULL CHECK (durability IN ('flush', 'write')),
    on_full TEXT NOT NULL CHECK (on_full IN ('wait', 'fail')),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;

CREATE TABLE replicas (
    id TEXT PRIMARY KEY NOT NULL,
    volume TEXT NOT NULL REFERENCES volumes (id),
    pool TEXT NOT NULL REFERENCES pools (id),
    state TEXT NOT NULL CHECK (state IN ('preparing', 'ready', 'removing')),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX replicas_by_volume ON replicas (volume);
CREATE INDEX replicas_by_pool ON replicas (pool);

-- No reference to volumes: the greatest number outlives its volume.
CREATE TABLE memberships (
    volume TEXT PRIMARY KEY NOT NULL,
    greatest_number INTEGER NOT NULL,
    retired INTEGER NOT NULL CHECK (retired IN (0, 1)),
    membership BLOB,
    revision INTEGER NOT NULL,
    CHECK (retired = 1 OR membership IS NOT NULL)
) STRICT;

CREATE TABLE permissions (
    resource TEXT PRIMARY KEY NOT NULL CHECK (resource <> ''),
    state TEXT NOT NULL CHECK (state IN ('granted', 'revoked', 'deleted')),
    generation INTEGER NOT NULL CHECK (generation > 0),
    host TEXT,
    incarnation TEXT,
    changed_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    CHECK ((state = 'granted') = (host IS NOT NULL)),
    CHECK ((state = 'granted') = (incarnation IS NOT NULL))
) STRICT;

CREATE TABLE past_holders (
    resource TEXT NOT NULL REFERENCES permissions (resource),
    host TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    generation INTEGER NOT NULL,
    delete_confirmed INTEGER NOT NULL CHECK (delete_confirmed IN (0, 1)),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (resource, host, incarnation)
) STRICT;
CREATE INDEX past_holders_by_incarnation ON past_holders (incarnation);
CREATE INDEX past_holders_pending ON past_holders (delete_confirmed) WHERE delete_confirmed = 0;

CREATE TABLE attachments (
    id TEXT PRIMARY KEY NOT NULL,
    volume TEXT NOT NULL REFERENCES volumes (id),
    instance TEXT NOT NULL REFERENCES instances (id),
    state TEXT NOT NULL CHECK (state IN ('attaching', 'attached', 'busy', 'detaching', 'detached')),
    frontend TEXT NOT NULL CHECK (frontend IN ('ublk', 'nbd')),
    device TEXT CHECK (device <> ''),
    ublk_number INTEGER CHECK (ublk_number >= 0),
    queues INTEGER NOT NULL CHECK (queues > 0),
    depth INTEGER NOT NULL CHECK (depth > 0),
    read_only INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    boot INTEGER NOT NULL CHECK (boot IN (0, 1)),
    delete_on_termination INTEGER NOT NULL CHECK (delete_on_termination IN (0, 1)),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    UNIQUE (instance, device)
) STRICT;
CREATE INDEX attachments_by_volume ON attachments (volume);

CREATE TABLE tags (
    resource TEXT NOT NULL,
    key TEXT NOT NULL CHECK (key <> ''),
    value TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (resource, key)
) STRICT;
CREATE INDEX tags_by_value ON tags (key, value);

CREATE TABLE client_tokens (
    action TEXT NOT NULL,
    token TEXT NOT NULL CHECK (token <> ''),
    fingerprint TEXT NOT NULL,
    resource TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (action, token)
) STRICT;

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY NOT NULL,
    time_ms INTEGER NOT NULL,
    resource TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    revision INTEGER NOT NULL
) STRICT;

CREATE TABLE counters (
    name TEXT PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
