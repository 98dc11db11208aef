"""The command line: words in, words out, exit codes.

It talks gRPC to the operator API and knows nothing of how the server does its work. Three commands are more than a client:
`serve` starts the application, `bootstrap` prints what a node needs, `demo` plays the whole thing.
"""
