"""Models: loading, one base with its members, the value head, the decode loop."""
