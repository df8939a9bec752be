"""How the time and the memory of a run grow, measured, and the model that predicts other runs."""
