from support.pages import Page, content

from flatguard.checks.evidence import Evidence
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.samples import SAMPLES, worst_samples
from flatguard.reporting.sections.twins import attempt_name
from flatguard.runs.run import Run


def test_the_worst_samples_come_first(run: Run) -> None:
    chosen = worst_samples(JudgedRun.load(run))
    evidence = Evidence.of(run)
    overturned = [s for s in chosen["sample"] if s in evidence.fooled]
    assert chosen["sample"].tolist()[: len(overturned)] == overturned
    assert len(overturned) == len(evidence.fooled)
    order = ["overturned", "survived", "fooled", "misclassified"]
    places = [order.index(outcome) for outcome in chosen["outcome"]]
    assert places == sorted(places)
    fooled = chosen[chosen["outcome"] == "fooled"]
    assert len(fooled) > 2
    assert fooled["adv_margin"].is_monotonic_increasing


def test_a_sample_names_the_attempts_that_fool_it(run: Run) -> None:
    judged_run = JudgedRun.load(run)
    found = content(SAMPLES, judged_run)
    attempts = judged_run.evidence.attempts
    first = found.data["samples"][0]
    fooled = attempts[(attempts["sample"] == first["sample"]) & attempts["fooled"].astype(bool)]
    assert first["outcome"] == "overturned"
    assert first["fooled_by"] == [attempt_name(name) for name in fooled["attempt"].unique()]
    page = Page(str(found.html))
    assert f"sample-{first['sample']}" in page.ids()
    images = [attrs for tag, attrs in page.tags if tag == "img" and attrs["alt"]]
    assert images[0]["alt"] == f"sample {first['sample']}, clean"
    assert len(images) == 3 * len(run.samples), "clean, audited attack, difference"
