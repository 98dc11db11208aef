-- The history: rows are only ever added, and the triggers below see to it.

CREATE TABLE revisions (
  number      INTEGER PRIMARY KEY,
  time        REAL NOT NULL,    -- seconds since the epoch
  author      TEXT NOT NULL,
  reason      TEXT NOT NULL,
  action      TEXT NOT NULL,
  reverted_to INTEGER NOT NULL, -- 0 unless action is 'revert'
  request_id  TEXT NOT NULL,    -- '' when the call had none
  request_digest TEXT NOT NULL
) STRICT;

-- One row for each object that a revision changed. The state as of a revision is the newest row of each name up to it.
CREATE TABLE objects (
  revision    INTEGER NOT NULL REFERENCES revisions (number),
  name        TEXT NOT NULL,    -- 'models/iris'
  content     TEXT,             -- JSON; NULL where it was deleted
  create_time REAL NOT NULL,    -- when the object came to be, seconds since the epoch
  UNIQUE (name, revision)
) STRICT;

CREATE INDEX objects_by_revision ON objects (revision);

-- What a call with a request id led to: the revision that it made, or that it found when it changed nothing.
CREATE TABLE requests (
  id          TEXT PRIMARY KEY,
  digest      TEXT NOT NULL,
  revision    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER revisions_without_a_gap BEFORE INSERT ON revisions
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM revisions)
BEGIN SELECT raise(ABORT, 'revisions are numbered without a gap'); END;

CREATE TRIGGER revisions_stay BEFORE UPDATE ON revisions BEGIN SELECT raise(ABORT, 'history does not change'); END;
CREATE TRIGGER revisions_last BEFORE DELETE ON revisions BEGIN SELECT raise(ABORT, 'history does not change'); END;
CREATE TRIGGER objects_stay BEFORE UPDATE ON objects BEGIN SELECT raise(ABORT, 'history does not change'); END;
CREATE TRIGGER objects_last BEFORE DELETE ON objects BEGIN SELECT raise(ABORT, 'history does not change'); END;
CREATE TRIGGER requests_stay BEFORE UPDATE ON requests BEGIN SELECT raise(ABORT, 'history does not change'); END;
CREATE TRIGGER requests_last BEFORE DELETE ON requests BEGIN SELECT raise(ABORT, 'history does not change'); END;
