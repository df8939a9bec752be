"""The audit pack: what an auditor files of a run, with hashes and a signature."""
