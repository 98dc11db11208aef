-- Message authentication codes of rows: a digest shows that a row changed by accident, a MAC also that somebody changed it who
-- does not have the sealing key (`digests.py`). Private keys move from the objects into records (`sealed_keys.py`).

ALTER TABLE digests ADD COLUMN mac BLOB;                      -- NULL in tables that have none

ALTER TABLE layout ADD COLUMN mac_key TEXT NOT NULL DEFAULT '';  -- the key of the MACs, sealed; '' until a server made one
