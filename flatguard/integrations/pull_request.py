"""A comment on a pull request of GitHub, for `action.yml`: one for each config, kept up to date.

    python -m flatguard.integrations.pull_request SUMMARY.md

It reads what GitHub Actions sets (`GITHUB_REPOSITORY`, `GITHUB_API_URL`, ...), `GITHUB_TOKEN`,
`PULL_REQUEST` and `CONFIG`. A token that may not write, as on a pull request from a fork, costs one
notice and no exit code: the step summary has the same text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatguard.environment.offline import FORBIDDEN, is_offline
from flatguard.errors import TrackerError, one_line, visible

_TIMEOUT = 20.0
_PAGE = 100
_LONGEST = 60_000
"""GitHub takes 65,536 characters."""
_UNJUDGED = "### flatguard: nothing could be judged\n\nThe log of the job says why."


@dataclass(frozen=True)
class PullRequest:
    """A pull request, and what speaks to GitHub about it.

    Attributes:
        api: the address of GitHub's API.
        repository: `owner/name`.
        number: of the pull request.
        token: of the job.
    """

    api: str
    repository: str
    number: int
    token: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> PullRequest:
        """That of the job.

        Raises:
            TrackerError: a variable is missing or is not what GitHub sets.
        """
        repository, number = environ.get("GITHUB_REPOSITORY", ""), environ.get("PULL_REQUEST", "")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise TrackerError(f"GITHUB_REPOSITORY: expected owner/name, got {repository!r}")
        if not re.fullmatch(r"[1-9][0-9]{0,9}", number):
            raise TrackerError(f"PULL_REQUEST: expected a number, got {number!r}")
        if not environ.get("GITHUB_TOKEN"):
            raise TrackerError("there is no GITHUB_TOKEN")
        api = environ.get("GITHUB_API_URL", "https://api.github.com")
        return cls(api.rstrip("/"), repository, int(number), environ["GITHUB_TOKEN"])

    def comment(self, marker: str, text: str) -> str:
        """Write a comment in place of the earlier one with this marker; its address."""
        body = {"body": f"{marker}\n{text}"}
        earlier = next((one for one in self._comments() if _is_ours(one, marker)), None)
        if earlier is not None:
            path = f"issues/comments/{int(earlier['id'])}"
            return str(self._call("PATCH", path, body)["html_url"])
        return str(self._call("POST", f"issues/{self.number}/comments", body)["html_url"])

    def _comments(self) -> Iterator[dict[str, Any]]:
        for page in range(1, 100):
            query = f"per_page={_PAGE}&page={page}"
            found = self._call("GET", f"issues/{self.number}/comments?{query}")
            yield from found
            if len(found) < _PAGE:
                return

    def _call(self, method: str, path: str, content: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.api}/repos/{self.repository}/{path}",
            data=None if content is None else json.dumps(content).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self.token}",
                "Accept": "application/vnd.github+json",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            return json.load(answer)


def _is_ours(comment: Mapping[str, Any], marker: str) -> bool:
    """Anyone may write the marker; only a bot's comment is one that this wrote."""
    is_bot = (comment.get("user") or {}).get("type") == "Bot"
    return is_bot and str(comment.get("body", "")).startswith(marker)


def comment_text(summary: str, environ: Mapping[str, str]) -> str:
    """The summary of the gate, cut where it is too long, with the job that it comes from."""
    text = summary.strip() or _UNJUDGED
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rsplit(chr(10), 1)[0]}\n\nThe rest is in the step summary."
    server, run = environ.get("GITHUB_SERVER_URL"), environ.get("GITHUB_RUN_ID", "")
    if server and run.isdigit():
        job = f"{server}/{environ.get('GITHUB_REPOSITORY')}/actions/runs/{run}"
        text += f"\n\n[The job and its reports]({job})"
    return text


def main(arguments: list[str]) -> int:
    """Comment the summary; its exit code is 0, also where it could not."""
    (file,) = arguments
    config = os.environ.get("CONFIG", "")
    marker = f"<!-- flatguard {hashlib.sha256(config.encode()).hexdigest()[:16]} -->"
    try:
        if is_offline():
            raise TrackerError(FORBIDDEN)
        summary = Path(file).read_text("utf-8")
        place = PullRequest.of(os.environ).comment(marker, comment_text(summary, os.environ))
    except Exception as error:  # whatever it is, the gate's exit code is the answer
        why = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else ""
        line = visible(" ".join((why or one_line(error)).splitlines())).replace("%", "%25")
        sys.stdout.write(
            f"::notice::flatguard did not comment on the pull request: {line}; the step summary "
            "has the verdict\n"
        )
    else:
        sys.stdout.write(f"{place}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
