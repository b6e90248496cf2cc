-- Whether a detach that is under way was forced: the next daemon carries an unforced one out only
-- where nobody uses the device.
ALTER TABLE attachments ADD COLUMN detach_forced INTEGER NOT NULL DEFAULT 0 CHECK (detach_forced IN (0, 1));
