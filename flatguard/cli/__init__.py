"""One command a file; each parses and delegates."""
