"""``python -m compress_rec``: the command line without its script."""

from compress_rec.cli import main

main()
