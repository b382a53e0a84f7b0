"""The commands as typed: arguments, options, help. Each imports what it needs when it runs."""
