"""`python -m qr_core.cli` is `qrhead`."""

from qr_core.cli.main import main

main()
