"""How sure a semantic tokenizer is of each frame's token."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Posterior:
    """How distances to cluster centres become probabilities of tokens, see :meth:`SemanticTokenizer.posterior`.

    Attributes:
        num_tokens: Tokens K per frame, the nearest ones; the probability of all others is theirs.
        sharpness: What a squared distance per dimension is multiplied with: the larger, the surer. Of a distilled
            student, that is best under which its teacher's tokens are most probable on unheard speakers.

    Raises:
        ValueError: A value is out of range.
    """

    num_tokens: int = 16
    sharpness: float = 30.0

    def __post_init__(self) -> None:
        if isinstance(self.num_tokens, bool) or not isinstance(self.num_tokens, int) or self.num_tokens < 1:
            raise ValueError(f"num_tokens={self.num_tokens!r} must be a whole number of at least 1")
        number = isinstance(self.sharpness, (int, float)) and not isinstance(self.sharpness, bool)
        if not number or not 0 < self.sharpness < math.inf:
            raise ValueError(f"sharpness={self.sharpness!r} must be a positive number")

    def check(self, vocab_size: int) -> None:
        """Insist that there are as many tokens as are asked for.

        Raises:
            ValueError: There are fewer.
        """
        if self.num_tokens > vocab_size:
            raise ValueError(f"num_tokens={self.num_tokens} of {vocab_size} semantic tokens: ask for fewer")
