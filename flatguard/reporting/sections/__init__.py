"""The sections of the report, in the order in which they are shown."""

from __future__ import annotations

from flatguard.reporting.sections.along_attack import ALONG_ATTACK
from flatguard.reporting.sections.detection import DETECTION
from flatguard.reporting.sections.discrepancy import DISCREPANCY
from flatguard.reporting.sections.ends import ENDS
from flatguard.reporting.sections.geometry import GEOMETRY
from flatguard.reporting.sections.radius import RADIUS
from flatguard.reporting.sections.repeat import REPEAT
from flatguard.reporting.sections.samples import SAMPLES
from flatguard.reporting.sections.scales import SCALES
from flatguard.reporting.sections.section import Section
from flatguard.reporting.sections.twins import TWINS

SECTIONS: tuple[Section, ...] = (
    ALONG_ATTACK,
    ENDS,
    GEOMETRY,
    DETECTION,
    RADIUS,
    SCALES,
    TWINS,
    DISCREPANCY,
    SAMPLES,
    REPEAT,
)
