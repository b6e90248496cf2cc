-- Pools whose replicas are to move elsewhere.
ALTER TABLE pools ADD COLUMN draining INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1));
