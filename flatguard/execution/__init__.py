"""How a run is done: its context, its plan, its blocks, and who attacks them."""
