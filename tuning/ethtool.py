"""What ethtool(8) shows and sets of a NIC: one reader and one writer for each part of it."""
import os
import re
import shutil
import subprocess

# ethtool answers at once; a driver that resets its hardware takes seconds.
SECONDS_MAX = 60
# What is steered, as ethtool names it.
FLOWS = ("udp4", "udp6", "tcp4", "tcp6")


class KnobError(Exception):
    """A knob could not be read or written; the text says why, for the operator."""


class Ethtool:
    """The program: the system's, or, for a made-up machine, the one that lies below its root."""

    def __init__(self, root, is_real):
        made_up = root / "usr/sbin/ethtool"
        # The packages of some systems keep it outside of an ordinary user's PATH.
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        found = shutil.which("ethtool", path=path) if is_real else made_up.exists() and str(made_up)
        self.path = found or None
        # What it has said since something was last written: a NIC has many knobs, and each question takes a process.
        self.said = {}

    def show(self, *arguments):
        """What it prints, or KnobError."""
        if arguments not in self.said:
            self.said[arguments] = self._run(*arguments)
        return self.said[arguments]

    def set(self, *arguments):
        """The same for what changes something."""
        self.said.clear()
        return self._run(*arguments)

    def _run(self, *arguments):
        if self.path is None:
            raise KnobError("ethtool is not installed")
        try:
            done = subprocess.run([self.path, *arguments], capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KnobError(f"ethtool {' '.join(arguments)}: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise KnobError(f"ethtool {' '.join(arguments)}: {said[-1]}")
        return done.stdout

    def read(self, nic, part, name):
        """One figure; None if there is none."""
        try:
            return READERS[part](self, nic, name)
        except KnobError:
            return None

    def write(self, nic, part, name, value):
        """Sets it, or raises KnobError."""
        if part not in WRITERS or not re.fullmatch(r"[\w.@][\w.@-]{0,14}", nic):
            raise KnobError(f"ethtool:{nic}:{part}:{name} is no knob of this program")
        WRITERS[part](self, nic, name, value)


def figures(text):
    """`Pre-set maximums` and `Current hardware settings` of ethtool -l and -g: two tables of numbers."""
    most, now = {}, {}
    table = most
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Current"):
            table = now
        elif value.strip().isdigit():
            table[name.strip().lower()] = value.strip()
    return most, now


def _read_channels(tool, nic, name):
    return figures(tool.show("-l", nic))[1].get(name)


def _read_ring(tool, nic, name):
    return figures(tool.show("-g", nic))[1].get(name)


def _read_coalesce(tool, nic, name):
    text = tool.show("-c", nic)
    if name == "adaptive-rx":
        found = re.search(r"^Adaptive RX: (on|off)\b", text, re.M)
    else:
        found = re.search(rf"^{re.escape(name)}:\s*(\d+)\s*$", text, re.M)
    return found and found.group(1)


def _read_feature(tool, nic, name):
    # Features that the hardware holds fast are printed with [fixed] behind them: they are no knobs.
    found = re.search(rf"^\s*{re.escape(name)}: (on|off)\s*$", tool.show("-k", nic), re.M)
    return found and found.group(1)


def _read_hash(tool, nic, name):
    text = tool.show("-n", nic, "rx-flow-hash", name)
    fields = (("IP SA", "s"), ("IP DA", "d"), ("L4 bytes 0 & 1", "f"), ("L4 bytes 2 & 3", "n"))
    return "".join(letter for words, letter in fields if re.search(rf"^\s*{words}", text, re.M)) or None


def _rules(tool, nic):
    """The rules that send port 53 to a set of queues: number, set."""
    for rule in re.split(r"^\s*Filter: ", tool.show("-n", nic), flags=re.M)[1:]:
        context = re.search(r"^\s*RSS Context ID: (\d+)", rule, re.M)
        if context and re.search(r"^\s*Dest port: 53 mask: 0x0\b", rule, re.M):
            yield rule.split()[0], context.group(1)


def _read_steer(tool, nic, _name):
    return "on" if list(_rules(tool, nic)) else "off"


def _write_steer(tool, nic, queues, value):
    """`on`: a set of the first `queues` queues and a rule for each kind of flow; `off`: all such rules and their sets."""
    if value == "off":
        rules = list(_rules(tool, nic))
        for rule, _ in rules:
            tool.set("-N", nic, "delete", rule)
        for context in {context for _, context in rules}:
            tool.set("-X", nic, "context", context, "delete")
        return
    made = re.search(r"New RSS context is (\d+)", tool.set("-X", nic, "context", "new", "equal", queues))
    if not made:
        raise KnobError("the driver has made no set of queues")
    try:
        for flow in FLOWS:
            tool.set("-N", nic, "flow-type", flow, "dst-port", "53", "context", made.group(1))
    except KnobError:
        # All or nothing: half of the queries at the workers' queues helps nobody.
        for rule, _ in list(_rules(tool, nic)):
            tool.set("-N", nic, "delete", rule)
        tool.set("-X", nic, "context", made.group(1), "delete")
        raise


def _named(flag):
    return lambda tool, nic, name, value: tool.set(flag, nic, name, value)


READERS = {"channels": _read_channels, "ring": _read_ring, "coalesce": _read_coalesce, "feature": _read_feature,
           "hash": _read_hash, "steer": _read_steer}
WRITERS = {"channels": _named("-L"), "ring": _named("-G"), "coalesce": _named("-C"), "feature": _named("-K"),
           "hash": lambda tool, nic, name, value: tool.set("-N", nic, "rx-flow-hash", name, value), "steer": _write_steer}
