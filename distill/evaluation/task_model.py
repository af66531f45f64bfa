"""Model as lm-eval asks it: texts begin as a corpus does, and how far it is can be told."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from distill.data.chat.beginning import beginning_of, missing
from distill.data.settings import AUTO

Progress = Callable[[int, int], None]
"""Takes how many texts are read and how many there are."""


def asked_class(
    tokenizer: PreTrainedTokenizerBase, bos: str = AUTO, progress: Progress | None = None
) -> Any:
    """lm-eval's class for models of Hugging Face, with texts that begin as `bos` says.

    Its own `add_bos_token` stands for all that a tokenizer adds: also what it puts at the end of a
    text, which then follows the context, and not for a BOS that a tokenizer does not add itself.
    """
    from lm_eval.models.huggingface import HFLM

    beginning = beginning_of(tokenizer, bos)
    tell = progress or (lambda done, total: None)

    class Asked(HFLM):  # type: ignore[misc]  # lm-eval is not annotated
        rolling = False
        read, texts = 0, 0
        """Texts that were read, of how many."""
        cut = 0
        """Texts that were too long and lost their beginning."""

        def __init__(self, **options: Any) -> None:
            super().__init__(prefix_token_id=beginning[-1] if beginning else None, **options)

        def loglikelihood_rolling(self, *arguments: Any, **options: Any) -> list[float]:
            self.rolling = True
            try:
                scores: list[float] = super().loglikelihood_rolling(*arguments, **options)
            finally:
                self.rolling = False
            return scores

        def _loglikelihood_tokens(self, requests: Any, *arguments: Any, **options: Any) -> Any:
            longest = self.max_length + 1  # the last token is not read
            self.cut += sum(len(row[1]) + len(row[2]) > longest for row in requests)
            # lm-eval reads texts once that differ in the last token only
            self._begin(len({(*row[1], *row[2][:-1]) for row in requests}))
            return super()._loglikelihood_tokens(requests, *arguments, **options)

        def generate_until(self, requests: Any, *arguments: Any, **options: Any) -> Any:
            self._begin(len(requests))
            return super().generate_until(requests, *arguments, **options)

        def _begin(self, texts: int) -> None:
            self.read, self.texts = 0, texts

        def _model_call(self, inps: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            self._passed(inps)
            return super()._model_call(inps, *arguments, **options)

        def _model_generate(self, context: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            self._passed(context)
            return super()._model_generate(context, *arguments, **options)

        def _passed(self, rows: torch.Tensor) -> None:
            tell(self.read, self.texts)
            self.read = min(self.texts, self.read + len(rows))

        def tok_encode(
            self,
            string: str,
            add_special_tokens: bool | None = None,
            left_truncate_len: int | None = None,
            **kwargs: Any,
        ) -> list[int]:
            ids: list[int] = self.tokenizer.encode(string, add_special_tokens=False, **kwargs)
            if self.rolling:  # lm-eval puts its prefix token before the first one itself
                return ids[1:] if ids[:1] == [self.prefix_token_id] else ids
            if add_special_tokens is not False:
                ids = [*missing(beginning, ids), *ids]
            return ids[-left_truncate_len:] if left_truncate_len else ids

        def tok_batch_encode(
            self,
            strings: list[str],
            padding_side: str = "left",
            left_truncate_len: int | None = None,
            truncation: bool = False,
        ) -> tuple[torch.Tensor, torch.Tensor]:
            longest = left_truncate_len or (self.max_length if truncation else None)
            rows = [self.tok_encode(string) for string in strings]
            self.cut += sum(longest is not None and len(row) > longest for row in rows)
            kept = [row[-longest:] if longest else row for row in rows]
            padded = self.tokenizer.pad(
                {"input_ids": kept}, padding_side=padding_side, return_tensors="pt"
            )
            return padded["input_ids"], padded["attention_mask"]

    return Asked
