"""Command line: `qrhead rank | prune | ask | explain | serve | rank-many | detect | heads | cache | eval | bench`.

One module a command, `common` for what several share, `main` for the whole. Options become one call; nothing else
happens here.
"""
