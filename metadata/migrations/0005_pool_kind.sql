-- A pool is a folder: no other kind was ever made.
ALTER TABLE pools DROP COLUMN kind;
