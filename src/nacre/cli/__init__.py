"""The command line: thin commands over the Python API. Nothing heavy is imported before a command needs it."""
