"""What methods may want of a forward pass over the rows, so that one pass serves all of them."""

from typing import Literal, get_args


#: The mean loss of the answers, given their prompts and given nothing (a pass of its own); loss and rank of each
#: token of the answers; the mean of the last hidden states, and their mean weighted by position, at length 1.
Want = Literal["loss", "unconditional loss", "token losses", "token ranks", "mean state", "position state"]

#: Those that one pass over the rows gives.
ONE_PASS = frozenset(get_args(Want)) - {"unconditional loss"}
#: Of these, vectors, with the names of their pooling.
STATES = {"mean state": "mean", "position state": "position"}
#: Of these, ragged: a number a token.
TOKENS = frozenset({"token losses", "token ranks"})
