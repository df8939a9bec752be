"""`flatguard evaluate`: attack a model, record it, and say what is left of its accuracy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from flatguard.cli import options


def command(
    ctx: typer.Context,
    config: options.ConfigName = None,
    model: options.Model = None,
    attack: options.Attack = None,
    attack_arg: options.AttackArg = None,
    norm: options.Norm = None,
    eps: options.Eps = None,
    dataset: options.DatasetName = None,
    data_dir: options.DataDir = Path("data"),
    preprocessing: options.Preprocessing = None,
    n_examples: options.Count = None,
    threat_model: options.ThreatModel = None,
    model_dir: options.ModelDir = Path("models"),
    arch: options.Arch = None,
    mean: options.Mean = None,
    std: options.Std = None,
    head: options.HeadName = None,
    logit_scale: options.LogitScale = 1.0,
    allow_code: options.AllowCode = False,
    out: options.Out = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    gradients: options.Gradients = False,
    checks: options.Checks = "fast",
    surrogate: options.Surrogate = None,
    tolerance: options.Tolerance = None,
    max_forwards: options.MaxForwards = None,
    max_minutes: options.MaxMinutes = None,
    detector: options.Detector = None,
    loss: options.Loss = None,
    layers: options.Layers = None,
    layer_samples: options.LayerSamples = 4,
    max_failures: options.MaxFailures = None,
    threads: options.Threads = None,
    workers: options.Workers = None,
    executor: options.ExecutorName = "processes",
    address: options.Address = None,
    shard: options.ShardText = None,
    resume: options.Resume = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Attack a model, record the geometry of every call, and say what the number is worth.

    Robust accuracy counts the samples that are right when clean and still right under the
    attack, over all samples; it is measured again on the returned examples, within budget. The
    verdict says whether the number can be believed.

    Exit code 0: it may be believed; 1: masked, or overestimated beyond the tolerance; 3:
    inconclusive. Where the config has thresholds, they decide; with --json they are under `gate`.
    Where a budget is spent before the first block of samples, there is no run: stdout stays empty,
    stderr says so in one line, and the exit code is 3. A shard is not judged: exit code 0.
    """
    from flatguard.checks.verdict import verdict_of
    from flatguard.cli.gated import Chosen, conclude, configured, gate_facts
    from flatguard.cli.progress import watching
    from flatguard.cli.resumed import check_alone, say_shard
    from flatguard.evaluation import evaluate
    from flatguard.evaluation import resume as take_up
    from flatguard.execution.executors import choose
    from flatguard.gate.config import Config
    from flatguard.request import TOLERANCE

    fields = {
        **options.settings(locals()),
        "model": model,
        "attack": attack,
        "data": dataset,
        "checks": checks,
        "surrogates": surrogate or (),
        "tolerance": TOLERANCE if tolerance is None else tolerance,
        "max_forwards": max_forwards,
        "max_minutes": max_minutes,
        "detector": detector,
    }
    how: dict[str, Any] = {
        "max_failures": max_failures,
        "executor": choose(executor, workers, address),
        "shard": shard,
    }
    if resume is not None:
        check_alone(ctx)
        chosen = Chosen(resume, {}, Config())
    else:
        chosen = configured(ctx, config, fields)
    with watching(quiet, as_json) as watcher:
        if resume is not None:
            run = take_up(resume, detector=detector, allow_code=allow_code, progress=watcher, **how)
        else:
            run = evaluate(**chosen.fields, **how, out=out, progress=watcher, command=sys.argv)
    if shard is not None:
        say_shard(run, shard)
        raise typer.Exit(0)
    verdict = verdict_of(run)
    if as_json:
        typer.echo(json.dumps({**run.summary, **gate_facts(run, verdict, chosen)}))
    else:
        from flatguard.cli.answer import show

        show(run, verdict)
    raise typer.Exit(conclude(run, verdict, chosen, quiet=as_json))
