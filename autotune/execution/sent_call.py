"""The state of a call that was sent to a cluster: its attempt, and how long nothing was heard of it."""

from __future__ import annotations

import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from autotune.artifacts.store import Stored
from autotune.execution.cluster import Needs
from autotune.execution.runs import AtWork
from autotune.stages.protocol import Call

BEGIN_S = 60.0
"""An order must begin within so many seconds after a node has left, or has room for it. Else it may lie on the node that has
left, because Ray still uses its processes, or with a suspended process.
"""
SILENT_S = 120.0
"""A process that says nothing of its order for so many seconds counts as cut off. Several times `BEAT_S`: a client
of NFS may see names that are half a minute old. Its result is dropped if it comes after that of the next attempt.
"""


@dataclass(eq=False)
class SentCall:
    """A call under way."""

    call: Call
    log: Path
    future: Future[Stored]
    limit_s: float
    """Seconds that the job may take."""
    number: int = -1
    """The number of this attempt's order."""
    token: str = ""
    """The name of this attempt on the nodes."""
    lost: list[str] = field(default_factory=list)
    """The tokens of attempts that were lost."""
    unbegun: int = 0
    """Attempts that never began, although a node had room for them."""
    first: bool = False
    """Whether it is the first job of its stage in this run."""
    node: str = ""
    """The id of its node; empty: not known yet."""
    host: str = ""
    """The host that does it; empty: not known yet."""
    needs: Needs = field(default_factory=Needs)
    begun: bool = False
    """Whether a node has reported that it does this attempt."""
    said: AtWork | None = None
    """The last report."""
    quiet_s: float = 0.0
    """The seconds without a new report."""
    busy_since: float | None = None
    """Since when another maker makes its result, by the monotonic clock."""
    waits: bool = False
    """Whether the user was told that it waits."""

    def begin(self, number: int, needs: Needs) -> None:
        """Begin another attempt."""
        self.number, self.token, self.needs = number, uuid.uuid4().hex, needs
        self.node, self.host, self.begun, self.said, self.quiet_s = needs.node, "", False, None, 0.0

    def hear(self, said: AtWork | None, passed_s: float) -> bool:
        """Note the present report of this attempt, `passed_s` seconds after the last one. Returns whether its host is new.

        `said` is None where the attempt has not begun, or has ended and its answer is on the way.
        """
        self.quiet_s = self.quiet_s + passed_s if said == self.said else 0.0
        self.said = said
        if said is None:
            return False
        moved, self.node, self.host, self.begun = said.host != self.host, said.node, said.host, True
        return moved

    @property
    def stuck(self) -> bool:
        """Whether it should have begun by now, if a node has room for it."""
        return not self.begun and self.quiet_s > BEGIN_S

    @property
    def silent(self) -> bool:
        """Whether it has begun, and had no report for too long."""
        return self.begun and self.quiet_s > SILENT_S
