"""The release gate: a config, thresholds, a cache of runs, and what to say when it is shut."""
