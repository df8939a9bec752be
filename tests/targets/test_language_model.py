"""The head of a language model is proven, and κ of its tokens is that of the dense Hessian."""

import math

import pytest
import torch
from support.language_models import VOCABULARY, llama, tiny, tokenizer

from flatguard.errors import ModelError, UsageError
from flatguard.targets.language_model import LanguageModel, language_model


@pytest.mark.parametrize("tied", [True, False])
def test_each_token_agrees_with_the_dense_hessian(tied: bool) -> None:
    net = llama(
        vocab_size=24, hidden_size=8, intermediate_size=8, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    ).double()  # fmt: skip
    model = LanguageModel("tiny", "here", net, None)
    before, target = [3, 9, 4, 1], [7, 5, 20]
    found = model.geometry(before, target)
    with torch.no_grad():
        states = net.model(input_ids=torch.tensor([before + target])).last_hidden_state[0]
    weight = net.lm_head.weight.detach()
    for place, token in enumerate(target):
        phi = states[len(before) - 1 + place]

        def loss(flat: torch.Tensor, phi: torch.Tensor = phi, token: int = token) -> torch.Tensor:
            logits = flat.view_as(weight) @ phi
            return torch.nn.functional.cross_entropy(logits[None], torch.tensor([token]))

        hessian = torch.autograd.functional.hessian(loss, weight.flatten(), vectorize=True)
        truth = float(weight.square().sum() * hessian.diagonal().sum())
        assert math.exp(float(found.log_kappa[place])) == pytest.approx(truth, rel=1e-5)
        assert float(found.loss[place]) == pytest.approx(float(loss(weight.flatten())), rel=1e-9)


def test_measuring_changes_nothing() -> None:
    model = tiny()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    first = model.geometry([3, 9, 4], [7, 5])
    assert torch.equal(first.log_kappa, model.geometry([3, 9, 4], [7, 5]).log_kappa)
    after = model.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not model.head._forward_pre_hooks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken(dtype: torch.dtype) -> None:
    model = language_model(llama().to(dtype), tokenizer(), "half", "here")
    assert bool(model.geometry([3, 9, 4], [7, 5]).log_kappa.isfinite().all())


def test_no_tokenizer_is_one_line() -> None:
    with pytest.raises(UsageError, match="mine has no tokenizer; save it beside the model"):
        language_model(llama(), None, "mine", "here")


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match=r"mine \(LlamaModel\) has no linear head"):
        language_model(llama().model, tokenizer(), "mine", "here")


@pytest.mark.parametrize("rows", [VOCABULARY - 1, 2 * VOCABULARY])
def test_another_vocabulary_than_the_tokenizers_is_refused(rows: int) -> None:
    with pytest.raises(ModelError, match=f"vocabulary of {rows} tokens, got one of {VOCABULARY}"):
        language_model(llama(vocab_size=rows), tokenizer(), "mine", "here")


def test_unused_rows_of_the_head_are_no_other_vocabulary() -> None:
    model = language_model(llama(vocab_size=VOCABULARY + 8), tokenizer(), "mine", "here")
    assert model.head.out_features == VOCABULARY + 8


def test_capped_and_scaled_logits_are_refused_by_name() -> None:
    from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM

    small = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    capped = Gemma2ForCausalLM(Gemma2Config(**small))
    with pytest.raises(ModelError, match=r"caps its logits \(final_logit_softcapping 30\)"):
        language_model(capped, tokenizer(), "mine", "here")
    scaled = CohereForCausalLM(CohereConfig(**small, logit_scale=0.0625, pad_token_id=2))
    with pytest.raises(ModelError, match="not those of its final linear layer"):
        language_model(scaled, tokenizer(), "mine", "here")
