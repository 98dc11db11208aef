-- Records, leases, and the identity of the history. The tables of 0001 stay as they are.

-- One row: a random name of this history.
CREATE TABLE identity (
  history_id  TEXT NOT NULL
) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(4))));

-- One row: the last number given to a record's version or to a lease's token. None is used twice.
CREATE TABLE sequence (
  number      INTEGER NOT NULL
) STRICT;
INSERT INTO sequence VALUES (0);

CREATE TABLE records (
  kind        TEXT NOT NULL,
  name        TEXT NOT NULL,
  version     INTEGER NOT NULL,
  value       BLOB NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX records_by_version ON records (kind, version);

-- The last acquisition of each lease that was not released.
CREATE TABLE leases (
  name        TEXT PRIMARY KEY,
  holder      TEXT NOT NULL,
  token       INTEGER NOT NULL,
  expires     REAL NOT NULL     -- seconds since the epoch
) STRICT, WITHOUT ROWID;

CREATE TRIGGER identity_stays BEFORE UPDATE ON identity BEGIN SELECT raise(ABORT, 'history does not change'); END;
CREATE TRIGGER identity_lasts BEFORE DELETE ON identity BEGIN SELECT raise(ABORT, 'history does not change'); END;
