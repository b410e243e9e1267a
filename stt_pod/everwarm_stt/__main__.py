"""`python -m everwarm_stt` is `everwarm-pod`."""

from everwarm_stt.main import main

main()
