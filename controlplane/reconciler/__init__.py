"""The two sides of the main process: publish the newest revision to the streams, and pass their events to the observers."""
