"""What other services read of a run: one service a file."""
