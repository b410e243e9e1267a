"""`python -m everwarm_operator` is `everwarm-operator`."""

from everwarm_operator.main import main

main()
