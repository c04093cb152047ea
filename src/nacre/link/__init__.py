"""Live speech between machines: lines that lose packets, pipes, UDP."""
