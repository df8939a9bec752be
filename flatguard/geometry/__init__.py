"""Pure mathematics on tensors: no files, no models by name, no printing."""
