-- Several hosts. A cluster has an id; a host says where its volumes listen for the others ("": they do not); a volume has a
-- host that carries out its creation and its deletion, and may be attached to several instances at a time.
CREATE TABLE clusters (
    id TEXT PRIMARY KEY NOT NULL,
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
ALTER TABLE hosts ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE volumes ADD COLUMN home TEXT REFERENCES hosts (id);
ALTER TABLE volumes ADD COLUMN multi_attach INTEGER NOT NULL DEFAULT 0 CHECK (multi_attach IN (0, 1));
UPDATE volumes SET home = (SELECT id FROM hosts LIMIT 1);
