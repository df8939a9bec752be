"""Runs an evaluation: its context, its plan, its blocks, and the executors that attack them.

Start at `context.py`: it loads what a request names. `plan.py` divides the samples into blocks,
`missing_blocks.py` hands the missing ones to an executor, `block.py` attacks and commits one block,
and `attempt.py` is one attack on some of its samples. `batch_size.py` halves the batch where the
memory is too small.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
