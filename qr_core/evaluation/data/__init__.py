"""Data: one module for each kind of data set that the evaluation reads.

Each turns files into candidate sets with judgements, and says which field of which file is at fault.
"""
