"""How long a user waits for a list."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import ClassVar

from compress_rec.index import CosineIndex
from compress_rec.timed import WARM_CALLS, Clock, TimedMeasure, Work
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class OnlineUserTime(TimedMeasure):
    """Milliseconds from a user's history to the list of k items: the user's vector and the search of the whole catalogue, on one thread.

    The item vectors are indexed and, for the pooled user, the behaviour vectors encoded before the clock starts, as they are when serving;
    the text user's history is encoded while it runs. Histories of held-out users, every ranker the same ones in the same order. Edge
    cases: a ranker without such a user tower has none. Values: one a round.

    k: length of the list; user: which user tower; repeats: requests; clock: "cpu" (processor time) or "wall"
    """

    name: ClassVar[str] = "online_user_time"
    group: ClassVar[str] = "Time"
    k: int = 10
    user: UserKind = "pooled"
    repeats: int = 200
    clock: Clock = "cpu"

    def work(self, ranker: Ranker, trial: Trial) -> Work:
        """Make the next user's list."""
        index, histories = CosineIndex(trial.items(ranker)), cycle(trial.histories)

        def call() -> None:
            history = next(histories)
            index.search(ranker.user_vectors(trial.catalogue, [history], self.user), self.k, exclude=[history])

        def warm() -> None:
            for _ in range(WARM_CALLS):
                call()

        return Work(call, warm, {"user": self.user, "catalogue": len(index), "kernel": index.backend})
