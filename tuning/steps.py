"""What a step is: one setting, what it should be, and why.

Topics yield steps one after the other. A topic may look at the machine again after a step that it has yielded: when that one
changed the number of a NIC's queues, the steps behind it are those of the new queues.
"""
from dataclasses import dataclass, field
from typing import Callable


def equal(now, wanted):
    """Met by this very value."""
    return now == wanted


def at_least(now, wanted):
    """Met by any larger figure, too."""
    return int(now) >= int(wanted)


def at_most(now, wanted):
    """Met by any smaller figure, too."""
    return int(now) <= int(wanted)


def same_mask(now, wanted):
    """CPU masks in the kernel's spelling: hexadecimal words with commas."""
    return int(now.replace(",", ""), 16) == int(wanted.replace(",", ""), 16)


@dataclass
class Step:
    """One setting. With a `knob` it can be applied; without, `now` says what was found and a hand has to act."""

    topic: str
    name: str
    wanted: str
    reason: str
    knob: str | None = None
    is_met: Callable[[str, str], bool] = equal
    # Only without a knob. None: this machine has no such thing.
    now: str | None = None
    # What to do, where no knob does it.
    by_hand: str = ""
    # Advice is told, but does not count: it is a choice, not a fault.
    is_advice: bool = False
    # Why a machine may not have it.
    absent: str = "this machine has no such setting, or lets nobody write it"
    # Undoing these resets others of the same NIC, which are then restored, too.
    resets: str = ""


@dataclass
class Finding:
    """What was found of a step, and what was done about it."""

    step: Step
    old: str | None
    # met, missing, absent, advice; of an apply also: changed, would change, failed.
    state: str
    new: str | None = None
    cause: str = ""

    def is_scored(self):
        """Whether it counts for the machine's score."""
        return self.state not in ("absent", "advice") and not self.step.is_advice

    def is_met(self):
        """Whether the machine is now as it should be."""
        return self.state in ("met", "changed")


@dataclass
class Wishes:
    """What the operator asks for."""

    nics: list = field(default_factory=list)
    cores: list = field(default_factory=list)
    topics: list = field(default_factory=list)
    reserve: str = "8053"
    busy_poll_us: int = 0
    wake_us: int = 10
    keep_queues: bool = False
    # How the cores were found.
    whence: str = ""


def look(machine, step):
    """What there is now, judged."""
    now = machine.read(step.knob) if step.knob else step.now
    if now is None:
        return Finding(step, None, "absent", cause=step.absent)
    try:
        is_met = step.is_met(now, step.wanted)
    except ValueError:
        is_met = False
    state = "met" if is_met else "advice" if step.is_advice else "missing"
    return Finding(step, now, state)
