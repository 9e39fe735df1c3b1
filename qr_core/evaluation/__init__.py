"""Evaluation: rank data sets with attention and with baselines on the same candidates, and report what came of it.

`data/` reads data sets, `systems/` are what is compared, `answers/` lets a generator answer and a judge decide,
`report/` writes. `tasks` and `lineup` choose, `evaluate` and `runner` do the work.
"""
