"""The `splitbus` command. Commands are thin: what they show and decide is in modules of its own, without typer."""
