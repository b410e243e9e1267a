"""`python -m everwarm.cli`, the same as `everwarm`."""

from everwarm.cli.app import main

main()
