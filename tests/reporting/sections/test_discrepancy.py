import pandas as pd
from support.pages import content, with_probes

from flatguard.checks.evidence import ProbeEvidence
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.discrepancy import DISCREPANCY
from flatguard.reporting.text import number
from flatguard.runs.run import Run


def test_every_attempt_is_counted_on_its_survivors(run: Run) -> None:
    judged = JudgedRun.load(run)
    found = content(DISCREPANCY, judged)
    attempts = judged.evidence.attempts
    for name, title in (("control", "plain search"), ("margin", "margin loss")):
        rows = attempts[attempts["attempt"] == name]
        wanted = {"tried": len(rows), "fooled": int(rows["fooled"].sum())}
        assert found.data[title] == wanted
    survivors, fooled = len(judged.evidence.reported), len(judged.evidence.fooled)
    alt = found.figures[0].text.alt
    assert alt.startswith(f"Of {survivors} survivors, {fooled} are fooled by another attempt.")


def test_of_a_repeated_attempt_one_success_is_enough(run: Run) -> None:
    survivor = min(JudgedRun.load(run).evidence.reported)
    table = pd.DataFrame(
        {"sample": survivor, "attempt": "twice", "family": "loss", "fooled": [True, False],
         "forwards": 1.0}
    )  # fmt: skip
    judged = with_probes(run, twice=ProbeEvidence({"ran": True}, {"attempts": table}))
    assert content(DISCREPANCY, judged).data["twice"] == {"tried": 1, "fooled": 1}


def test_the_rank_correlation_is_the_findings(run: Run) -> None:
    judged = JudgedRun.load(run)
    finding = next(f for f in judged.verdict.findings if f.check == "discrepancy")
    rank = finding.data["rank_biserial"]
    assert number(rank, 2) in content(DISCREPANCY, judged).intro
