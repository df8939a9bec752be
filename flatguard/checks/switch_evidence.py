"""Whether the output is chosen between branches, and whether that choice hid mistakes."""

from __future__ import annotations

from flatguard.checks.evidence import Evidence

SWITCH = "switch"
"""The family of the attempts on branches."""


def hidden_by_the_gate(evidence: Evidence) -> set[int]:
    """Samples whose mistake the gate may have hidden from the audited attack.

    The audited attack fools them where the gates stay as they are within the budget; or an attempt
    on branches finds, beyond chance, an example for which the model chooses another branch than for
    the clean image.
    """
    probe = evidence.probe("switches")
    table = None if probe is None else probe.tables.get("choices")
    if table is None:
        return set()
    turned = (table["found"] >= 0) & (table["found"] != table["clean"])
    found = evidence.fooled_by(SWITCH) - evidence.chance
    hidden = set(table.loc[turned, "sample"].astype(int)) & found
    return hidden | set(table.loc[table["frozen"].astype(bool), "sample"].astype(int))


def fooled_again(evidence: Evidence) -> set[int]:
    """What the audited attack fools with another seed; a plain search where it is too dear."""
    return evidence.fooled_by("repeat") if evidence.tried("repeat") else evidence.chance
