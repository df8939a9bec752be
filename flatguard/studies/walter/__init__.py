"""Walter et al. (2026): every figure and table, and the statements that a model can test."""
