-- An instance's deletion detaches all its volumes before it deletes one. So that it can be repeated after a kill in between:
-- terminating says that the detach is a part of it; delete_with, of a volume that was detached so, with which instance it goes.
ALTER TABLE attachments ADD COLUMN terminating INTEGER NOT NULL DEFAULT 0 CHECK (terminating IN (0, 1));
ALTER TABLE volumes ADD COLUMN delete_with TEXT REFERENCES instances (id);
