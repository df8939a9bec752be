"""A tiny Llama with random weights, and a byte-level tokenizer trained on a few sentences."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

SENTENCES = [
    "Say hello to the world. x x x x x", "The quick brown fox jumps over the lazy dog!",
    "Sure, here is a poem about the sea.", "hello hello world world answer answer",
    "Please repeat the word: banana? (yes) [no] {maybe} & more; a b c d e f g h i j k l m n o p",
]  # fmt: skip
VOCABULARY = 320
CHAT = (
    "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(chat: bool = True) -> Any:
    """Of bytes and merges of them, with five special tokens; every text survives it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"]
    made.train_from_iterator(
        SENTENCES * 3,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=special[0], eos_token=special[1], pad_token=special[2]
    )
    fast.chat_template = CHAT if chat else None
    return fast


def llama(seed: int = 0, **changes: Any) -> Any:
    """Two layers of 32 features, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            **{
                "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "max_position_embeddings": 256, "tie_word_embeddings": True,
                "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.4,
                **changes,
            }
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()


@cache
def tiny() -> Any:
    """The checked language model of both."""
    from flatguard.targets.language_model import language_model

    return language_model(llama(), tokenizer(), "tiny", "random weights")


def save(folder: Path, **changes: Any) -> Path:
    """A folder as `save_pretrained` writes it."""
    llama(**changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def claimed_target(model: Any, prompt: str, suffix: list[int], length: int = 2) -> str:
    """What the model answers greedily after these tokens, as a target that it is sure to claim."""
    from flatguard.targets.prompt_tokens import PromptTokens

    ids = PromptTokens.of(model, prompt, "x").ids(tuple(suffix))
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return str(model.decode(ids[-length:]))
