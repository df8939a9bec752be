"""A run folder turned into something that a person or a machine reads; judges nothing itself."""
