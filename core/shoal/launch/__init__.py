"""Finding, starting and joining clusters."""
