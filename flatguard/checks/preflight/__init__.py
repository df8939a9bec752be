"""Preflight: what the model does on the clean images, measured before the attack.

`gather` needs the model and stores what it measured in the run folder, as the probe `preflight`.
The checks that judge it read that evidence only.
"""
