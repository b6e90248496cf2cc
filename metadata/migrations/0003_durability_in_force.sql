-- What the volume's front end told the guest of a cache. It stays in force as long as the volume is attached, over restarts of
-- the daemon too: a guest that was told of no cache sends no flushes.
ALTER TABLE attachments ADD COLUMN durability TEXT NOT NULL DEFAULT 'flush' CHECK (durability IN ('flush', 'write'));
UPDATE attachments SET durability = (SELECT volumes.durability FROM volumes WHERE volumes.id = attachments.volume);
