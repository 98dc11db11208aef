"""The results of probes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Answer(Enum):
    """The result of probing one endpoint."""

    YES = "answers"
    NO = "does not answer"
    UNKNOWN = "not probed"  # not allowed, or not possible in the time


@dataclass(frozen=True, slots=True)
class EndpointProbe:
    """The result of probing one endpoint."""

    address: str  # `HOST:PORT` as in desired state
    answer: Answer
    # The reason if the answer is not YES, like `connection refused`; "" otherwise.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VersionProbe:
    """The results of probing one version: of all its endpoints, or of a sample."""

    model: str  # label
    version: str  # label
    total: int  # endpoints in desired state
    endpoints: tuple[EndpointProbe, ...]

    @property
    def answering(self) -> int:
        """The number of endpoints that answer."""
        return sum(e.answer is Answer.YES for e in self.endpoints)

    @property
    def failures(self) -> tuple[EndpointProbe, ...]:
        """The endpoints that do not answer."""
        return tuple(e for e in self.endpoints if e.answer is Answer.NO)

    @property
    def probed(self) -> int:
        """The number of endpoints that answer or do not answer. The others are UNKNOWN."""
        return self.answering + len(self.failures)

    @property
    def dead(self) -> bool:
        """True if every endpoint of the version was probed and none answers."""
        return len(self.failures) == self.total > 0
