"""`python -m splitbus_cli` is `splitbus`."""

from splitbus_cli.main import main

main()
