"""Can the number be believed? Reads evidence and judges; never runs the model."""
