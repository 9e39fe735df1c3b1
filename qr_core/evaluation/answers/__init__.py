"""Answers: a generator answers from what a system ranked first, and a judge says whether it is right."""
