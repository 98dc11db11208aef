"""Problems: what is wrong with the fleet and its traffic now, and what to do about it. Pure functions of values.

`reasons.py` has the table of reasons. Each other module finds the problems of one part. `judge.py` calls them all and sums up.
"""
