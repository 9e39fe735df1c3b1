"""Evaluation: data sets, candidate pools, baselines and metrics.

Stands on the scorer; the scorer knows nothing of it.
"""
