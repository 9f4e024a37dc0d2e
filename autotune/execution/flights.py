"""A call that was sent to a cluster: what is known of its present attempt, and for how long nothing was heard of it."""

from __future__ import annotations

import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from autotune.artifacts.store import Stored
from autotune.execution.cluster import Needs
from autotune.execution.runs import AtWork
from autotune.stages.jobs import Call

BEGIN_S = 60.0
"""Seconds in which an order must begin once some node has left, or a node has room for it: else it may lie on a node that has
left, as Ray goes on to use its processes, or with a process that was stopped.
"""
SILENT_S = 120.0
"""Seconds after which a process counts as cut off that says nothing of the order that it does. Several times `BEAT_S`: a client
of NFS may see names that are half a minute old. Its result is dropped if it comes after that of the next attempt.
"""


@dataclass(eq=False)
class Flight:
    """A call under way."""

    call: Call
    log: Path
    future: Future[Stored]
    limit_s: float
    """Seconds that the job may take."""
    number: int = -1
    """Of this attempt."""
    token: str = ""
    """What names this attempt on the nodes."""
    lost: list[str] = field(default_factory=list)
    """The tokens of attempts that were lost."""
    unbegun: int = 0
    """Attempts that never began, although a node had room for them."""
    first: bool = False
    """Whether it is the first job of its stage in this run."""
    node: str = ""
    """The id of the node that does it, or is to do it, as far as it is known."""
    host: str = ""
    """On which it is done, as far as it is known."""
    needs: Needs = field(default_factory=Needs)
    begun: bool = False
    """Whether a node has said that it does this attempt."""
    said: AtWork | None = None
    """What was said of it when it was looked for last."""
    quiet_s: float = 0.0
    """For how many seconds nothing new was said."""
    busy_since: float | None = None
    """Since when another makes its result, by the monotonic clock."""
    waits: bool = False
    """Whether the user was told that it waits."""

    def begin(self, number: int, needs: Needs) -> None:
        """Begin another attempt."""
        self.number, self.token, self.needs = number, uuid.uuid4().hex, needs
        self.node, self.host, self.begun, self.said, self.quiet_s = needs.node, "", False, None, 0.0

    def hear(self, said: AtWork | None, passed_s: float) -> bool:
        """Note what is said of this attempt now, so many seconds after the last time; None: nothing, because it has not begun, or
        has ended and its answer is on the way. Returns whether its host is new.
        """
        self.quiet_s = self.quiet_s + passed_s if said == self.said else 0.0
        self.said = said
        if said is None:
            return False
        moved, self.node, self.host, self.begun = said.host != self.host, said.node, said.host, True
        return moved

    @property
    def stuck(self) -> bool:
        """Whether it should have begun, if a node has room for it."""
        return not self.begun and self.quiet_s > BEGIN_S

    @property
    def silent(self) -> bool:
        """Whether it began, and nothing has been heard of it for too long."""
        return self.begun and self.quiet_s > SILENT_S
