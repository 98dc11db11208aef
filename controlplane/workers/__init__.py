"""Worker processes that serve xDS: started, supplied with snapshots, and replaced by the main process."""
