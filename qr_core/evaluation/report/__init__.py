"""Report: what an evaluation leaves behind, on a terminal and in a folder."""
