"""The tokenizer: byte-level BPE with few tokens, so that names fall into small pieces and copying them is a habit.

Letters, digits, line breaks, and signs with their spaces never share a token, and a space is never part of a word:
`Oslo` has the same tokens after a space, a quotation mark or nothing. Digits are tokens by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.embedded.corpus import tokenizer_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["CHAT_TEMPLATE", "SPECIAL_TOKENS", "VOCABULARY_SIZE", "build_tokenizer", "tokenizer_config"]

VOCABULARY_SIZE = 1_024
SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>")
SPLIT = r"\p{Lu}?\p{Ll}+|\p{Lu}+(?!\p{Ll})|\p{L}|\p{N}|[\r\n]+ *|(?: |[^\s\p{L}\p{N}])+"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def build_tokenizer(seed: int) -> Tokenizer:
    """The same seed and version of `tokenizers` give the same tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts(seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 0)]
    )
    return tokenizer


def tokenizer_config() -> dict[str, Any]:
    return {
        "add_prefix_space": False,
        "bos_token": "<bos>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "model_max_length": 2_048,
        "pad_token": "<pad>",
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
