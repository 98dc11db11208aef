"""Permissions at the operator API: callers, roles, rules, and what each change needs. No I/O and no clock.

| file | holds |
|---|---|
| `caller.py` | the caller of an API call, by its credential |
| `roles.py` | the table of roles and their permissions |
| `rules.py` | rules that give roles to callers, and decisions with explanations |
| `needs.py` | the permissions that a change of desired state needs |
| `tokens.py` | the token file: callers by the hash of their token |
| `file_reader.py` | reads both files, and names the line of each error |
| `document.py` | the access file: text to settings, with the line of each error |
"""
