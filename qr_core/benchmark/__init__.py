"""Benchmark: scoring beside a plain forward pass, the published algorithm and a cross-encoder, as `qrhead bench`.

    subject (a model and heads) + task (documents and queries) -> sides -> times, memory, agreement -> report, plot

Knows nothing of the command line.
"""
