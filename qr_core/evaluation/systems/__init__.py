"""Systems: what ranks candidate sets: attention scorers, BM25, dense encoders, cross-encoders, generators."""
