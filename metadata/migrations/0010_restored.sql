-- A store that was restored from a backup, or rebuilt (replication R16): by a frozen membership nothing is decided before the hosts of its
-- members have reported what they know. A volume that had none yet has one then that is empty.
CREATE TABLE memberships_with_frozen (
    volume TEXT PRIMARY KEY NOT NULL,
    greatest_number INTEGER NOT NULL,
    retired INTEGER NOT NULL CHECK (retired IN (0, 1)),
    membership BLOB,
    frozen INTEGER NOT NULL CHECK (frozen IN (0, 1)),
    revision INTEGER NOT NULL,
    CHECK (retired = 1 OR frozen = 1 OR membership IS NOT NULL)
) STRICT;
INSERT INTO memberships_with_frozen (volume, greatest_number, retired, membership, frozen, revision)
    SELECT volume, greatest_number, retired, membership, 0, revision FROM memberships;
DROP TABLE memberships;
ALTER TABLE memberships_with_frozen RENAME TO memberships;
CREATE INDEX frozen_memberships ON memberships (volume) WHERE frozen = 1;

CREATE TABLE host_reports (
    volume TEXT NOT NULL,
    host TEXT NOT NULL,
    report BLOB NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (volume, host)
) STRICT;
