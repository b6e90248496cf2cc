-- A replica that left its volume's membership stays 'lost' while its pool may come back; it is 'returning' while what differs is
-- copied to it. SQLite changes no CHECK in place, so the table is made again; nothing refers to it.
CREATE TABLE replicas_again (
    id TEXT PRIMARY KEY NOT NULL,
    volume TEXT NOT NULL REFERENCES volumes (id),
    pool TEXT NOT NULL REFERENCES pools (id),
    state TEXT NOT NULL CHECK (state IN ('preparing', 'ready', 'lost', 'returning', 'removing')),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO replicas_again (id, volume, pool, state, created_ms, revision)
    SELECT id, volume, pool, state, created_ms, revision FROM replicas;
DROP TABLE replicas;
ALTER TABLE replicas_again RENAME TO replicas;
CREATE INDEX replicas_by_volume ON replicas (volume);
CREATE INDEX replicas_by_pool ON replicas (pool);
