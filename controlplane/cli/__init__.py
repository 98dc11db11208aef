"""The command line: a client of the operator API, with texts for people, JSON for programs, and exit codes.

Each module has one command, or a small group of commands. Four commands are more than a client: `serve` starts the
application, `bootstrap` prints a node's configuration, `validate --offline` uses the server's checks, and `demo` starts
everything.
"""

import os

# gRPC's library writes lines of its own to stderr, such as one for each failed handshake of a stranger. It reads this once.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
