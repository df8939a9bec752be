"""`verify()`: is a claimed robust accuracy what the evidence says?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from flatguard.checks.claims.answer import Answer
from flatguard.checks.claims.claim import Claim, claim_of
from flatguard.checks.claims.stored_claim import load_claim, write_claim
from flatguard.environment.caller import own_process
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError, UsageError
from flatguard.evaluation import evaluate
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.finishing import finish
from flatguard.request import EXAMPLES, MOST_EXAMPLES
from flatguard.runs.run import Run, load_run
from flatguard.targets.target import Target

ATTACK = "apgd-ce"
"""The attack on a claim without examples, as AutoAttack's standard version begins: one restart."""
_ARGUMENTS = {"n_restarts": 1}


@own_process()
def verify(
    model: str | nn.Module | Target,
    claim: str | float,
    *,
    examples: str | os.PathLike[str] | None = None,
    indices: str | os.PathLike[str] | Sequence[int] | None = None,
    claim_clean: str | float | None = None,
    claim_images: int | None = None,
    attack: str | None = None,
    data: Any = None,
    out: str | Path | None = None,
    progress: ProgressReporter | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> Answer:
    """Check somebody's claim of a robust accuracy against the model.

    With the claimer's adversarial examples, each is judged again: is it within the budget of its
    image, and does it fool the model? What survives them is attacked by the checks. Without
    examples, an attack of ours takes their place.

    Args:
        model: as for `evaluate`.
        claim: the claimed robust accuracy, `"90.5%"` or 0.905, for this norm and radius.
        examples: a file of adversarial examples: `.pt`, `.npz`, `.npy` or `.safetensors`, as
            AutoAttack, RobustBench's submissions, torchattacks and Foolbox's users save them.
        indices: the number of each example's image, or a file of them; without it, an example
            belongs to the image at its place, or else to the nearest one within the budget.
        claim_clean: the claimed clean accuracy.
        claim_images: on how many images the claim was made; without it, on as many as there are
            examples for, or on others of the same distribution.
        attack: in place of examples; None is APGD on cross-entropy with 100 steps.
        data: as for `evaluate`.
        out: the run folder; None names a new one under `reports/`.
        progress: receives progress updates; None is silent.
        command: the command line, for the manifest.
        **options: the fields of `EvaluationRequest`: `eps`, `norm`, `n_examples`, `checks`, ...

    Returns:
        The answer: `word` is `reproduced`, `not reproduced`, `refuted` or `undecided`. It is kept
        in `claim.json` of the run folder.

    Raises:
        UsageError: the claim is no share, or contradicts itself.
        DataError: the file holds no examples, or none of these images.
        FlatguardError: as `evaluate`.

    Example:
        >>> answer = flatguard.verify("demo", "0%", n_examples=8)  # doctest: +SKIP
        >>> answer.word, answer.exit_code  # doctest: +SKIP
        ('reproduced', 0)
    """
    made = claim_of(claim, claim_clean, claim_images)
    named = _attack(examples, indices, attack, options)
    if made.images is not None:
        wanted = options.get("n_examples")
        if wanted is not None and wanted > made.images:
            raise UsageError(
                f"--n-examples {wanted}: the claim is about {made.images} images; give "
                f"--n-examples {made.images}, and the claim's images first"
            )
        if examples is None and made.images <= MOST_EXAMPLES:
            options["n_examples"] = wanted or made.images
    run = evaluate(model, named, data=data, out=out, progress=progress, command=command, **options)
    return verify_run(run, made, progress=progress)


@own_process()
def verify_run(
    run: Run | str | Path,
    claim: Claim | str | float,
    *,
    claim_clean: str | float | None = None,
    claim_images: int | None = None,
    progress: ProgressReporter | None = None,
) -> Answer:
    """Check a claim against a run that is there, without its model; the report then shows it.

    Args:
        run: the run, or its folder.
        claim: of a robust accuracy, for the norm and radius of the run.
        claim_clean: the claimed clean accuracy.
        claim_images: on how many images the claim was made.
        progress: receives progress updates; None is silent.

    Raises:
        UsageError: the claim is no share, or contradicts itself.
        RunFolderError: no such run, it is damaged, or it has no finished block.
    """
    made = claim if isinstance(claim, Claim) else claim_of(claim, claim_clean, claim_images)
    opened = run if isinstance(run, Run) else load_run(run)
    if not opened.blocks:
        raise RunFolderError(
            f"{opened.storage} has no finished block yet; flatguard resume {quoted(opened.storage)}"
        )
    write_claim(opened, made)
    finish(opened, progress or Silent())
    stored = load_claim(opened)
    assert stored is not None
    assert stored.answer is not None, "`finish` answers it"
    return stored.answer


def _plain(indices: str | os.PathLike[str] | Sequence[int]) -> str | list[int]:
    """Indices as a manifest holds them: the path of a file, or whole numbers."""
    if isinstance(indices, (str, os.PathLike)):
        return os.fspath(indices)
    return [int(each) for each in indices]


def _attack(
    examples: str | os.PathLike[str] | None,
    indices: str | os.PathLike[str] | Sequence[int] | None,
    attack: str | None,
    options: dict[str, Any],
) -> str:
    """The attack that shows the examples, or the one in their place, with its arguments.

    Raises:
        UsageError: examples and an attack, or indices without examples.
    """
    if examples is None:
        if indices is not None:
            raise UsageError("--indices say which images examples belong to; give --examples, too")
        if attack is None and not options.get("attack_args"):
            options["attack_args"] = dict(_ARGUMENTS)
        return attack or ATTACK
    if attack is not None:
        raise UsageError("--examples take the place of an attack: leave out --attack")
    if not isinstance(examples, (str, os.PathLike)):
        raise UsageError(
            f"examples: expected the path of a file, got {type(examples).__name__}; save them with "
            "torch.save or numpy.savez first"
        )
    if indices is not None:
        known = options.get("attack_args", {})
        options["attack_args"] = {**known, "indices": _plain(indices)}
    return f"{EXAMPLES}{os.fspath(examples)}"
