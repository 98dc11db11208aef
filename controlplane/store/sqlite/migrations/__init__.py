"""Schema of the SQLite store: file NNNN.sql leads from version N - 1 to version N. A file that was released never changes."""
