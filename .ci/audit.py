"""`make audit`: known advisories against the tested set of constraints.txt, by pip-audit.

Ends with 0 where every advisory is among the accepted ones, 1 where one is not, and 3 where nobody
answered: a package index without advisories says of everything that it knows nothing against it, so
an old release that is known to be vulnerable is asked for first. With --report it only tells.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CANARY = "requests==2.19.1"
ACCEPTED = ROOT / ".ci" / "audit-accepted.txt"


def audited(requirements: Path) -> list[dict]:
    """What pip-audit says of each pinned package; nothing where it cannot say."""
    typed = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--no-deps",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--requirement",
        str(requirements),
    ]
    done = subprocess.run(typed, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr[-500:], file=sys.stderr)
        return []


def main() -> int:
    """Audit, and say what was found."""
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(f"{CANARY}\n")
        if not any(package.get("vulns") for package in audited(canary)):
            print(f"NOT AUDITED: no advisory service answers; it knows nothing against {CANARY}")
            return 3
    accepted = {line.split()[0] for line in ACCEPTED.read_text().splitlines() if line[:1].isalnum()}
    packages = audited(ROOT / "constraints.txt")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, vuln) for package in packages for vuln in package.get("vulns", ())]
    new = [pair for pair in found if not {pair[1]["id"], *pair[1].get("aliases", ())} & accepted]
    for package, vuln in found:
        word = "NEW" if (package, vuln) in new else "accepted"
        fixed = ", ".join(vuln["fix_versions"]) or "no release"
        print(f"{word:<9}{package['name']} {package['version']}: {vuln['id']}, mended in {fixed}")
    print(f"{len(packages)} packages, {len(found)} advisories, {len(new)} of them not accepted")
    print(f"not audited: {', '.join(unknown) or 'none'}")
    return 1 if new or not packages else 0


if __name__ == "__main__":
    code = main()
    sys.exit(0 if "--report" in sys.argv[1:] else code)
