"""The audit log: who changed something, or was refused, in local files that show any edit. No gRPC.

| file | does |
|---|---|
| `entries.py` | entries as JSON lines, each with a hash of itself and of all before it; pure |
| `files.py` | the files: append, rotate, drop the oldest; blocking |
| `log.py` | the log of a server: an entry before and after each change, samples of strangers, the export |
| `heads.py` | keeps the newest hash in the store, so that cutting off the end is found |
| `verify.py` | checks the files, and compares them with the store |
| `export.py` | sends entries to a file or to syslog |

An entry is written before each change, and the change is refused if that fails. A second one has the outcome.
"""
