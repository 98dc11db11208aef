"""The command line: a client of the operator API, with texts for people, JSON for programs, and exit codes.

Each module has one command, or a small group of commands. Four commands are more than a client: `serve` starts the
application, `bootstrap` prints a node's configuration, `validate --offline` uses the server's checks, and `demo` starts
everything.
"""
