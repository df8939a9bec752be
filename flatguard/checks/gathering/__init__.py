"""Our own experiments on the target, one a file: they store what they saw, and judge nothing."""
