"""What depends on the machine: other people's packages, and what is missing or broken in them."""
