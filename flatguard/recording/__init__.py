"""What an attack did: every model call it made, with its geometry."""
