"""Worker processes that serve xDS: the main process starts them, sends them snapshots, and replaces those that end."""
