"""Speed and memory, as ratios from one interleaved run; never part of the tests."""
