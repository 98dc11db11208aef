-- Digests of rows, and a second copy of what the file's header says. The tables of 0001 and 0002 stay as they are.

-- One row for each row of a table: a digest of all its values, so that a changed bit is found (`digests.py`).
CREATE TABLE digests (
  table_name  TEXT NOT NULL,
  row_key     TEXT NOT NULL,    -- the values of the row's key, with a space between them; '' in a table of one row
  digest      BLOB NOT NULL,
  PRIMARY KEY (table_name, row_key)
) STRICT, WITHOUT ROWID;

-- One row. `schema.py` keeps the first two columns.
CREATE TABLE layout (
  version       INTEGER NOT NULL,  -- the schema, as `PRAGMA user_version` says
  schema_digest BLOB NOT NULL,     -- of the SQL of all tables, indexes and triggers
  codec_digest  BLOB NOT NULL      -- of the form of objects that this file was last read with, completely
) STRICT;
INSERT INTO layout VALUES (0, x'', x'');
