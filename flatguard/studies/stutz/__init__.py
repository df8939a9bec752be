"""Stutz et al. (2021): every figure and table of the workshop version."""
