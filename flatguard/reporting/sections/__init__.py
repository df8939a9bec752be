"""The sections of the report, in the order in which they are shown."""

from __future__ import annotations

from flatguard.reporting.sections.after_attack import AFTER_ATTACK
from flatguard.reporting.sections.along_attack import ALONG_ATTACK
from flatguard.reporting.sections.claim import CLAIM
from flatguard.reporting.sections.detection import DETECTION
from flatguard.reporting.sections.discrepancy import DISCREPANCY
from flatguard.reporting.sections.error_rates import ERROR_RATES
from flatguard.reporting.sections.geometry import GEOMETRY
from flatguard.reporting.sections.leaderboard import LEADERBOARD
from flatguard.reporting.sections.logit_scales import LOGIT_SCALES
from flatguard.reporting.sections.preflight import PREFLIGHT
from flatguard.reporting.sections.radius import RADIUS
from flatguard.reporting.sections.reproduction import REPRODUCTION
from flatguard.reporting.sections.resubmission import RESUBMISSION
from flatguard.reporting.sections.samples import SAMPLES
from flatguard.reporting.sections.section import Section
from flatguard.reporting.sections.twins import TWINS

SECTIONS: tuple[Section, ...] = (
    CLAIM,
    LEADERBOARD,
    PREFLIGHT,
    ALONG_ATTACK,
    AFTER_ATTACK,
    GEOMETRY,
    DETECTION,
    RADIUS,
    LOGIT_SCALES,
    TWINS,
    DISCREPANCY,
    RESUBMISSION,
    ERROR_RATES,
    SAMPLES,
    REPRODUCTION,
)
