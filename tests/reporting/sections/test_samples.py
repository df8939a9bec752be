from flatguard.checks.evidence import Evidence
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.samples import worst_samples
from flatguard.runs.run import Run


def test_the_worst_samples_come_first(run: Run) -> None:
    chosen = worst_samples(JudgedRun.load(run))
    evidence = Evidence.of(run)
    overturned = [s for s in chosen["sample"] if s in evidence.fooled]
    assert chosen["sample"].tolist()[: len(overturned)] == overturned
    assert len(overturned) == len(evidence.fooled)
    assert chosen["fate"].tolist() == sorted(
        chosen["fate"], key=["overturned", "stood", "fell", "wrong"].index
    )
