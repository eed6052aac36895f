"""The machine that is tuned: files of the kernel below one root, and ethtool(8).

A knob is one thing that can be read and, mostly, written. Its address is a text that the state file keeps, so that a later
run finds it again without the options of the first:

    file:/proc/sys/net/core/rmem_max        the whole file
    choice:/sys/kernel/mm/.../enabled       the word in brackets, as in `always [madvise] never`
    ethtool:eth0:channels:combined          one figure of a NIC; parts: channels, ring, coalesce, feature, hash

Everything lies below `root`, ethtool included, so that tests can have a machine of their own.
"""
import os
import pathlib
import re
import shutil
import subprocess

# Where a knob may lie: a state file can make nobody write elsewhere.
WRITABLE = ("/proc/sys/", "/proc/irq/", "/sys/")
# ethtool answers at once; a driver that resets its hardware takes seconds.
ETHTOOL_SECONDS_MAX = 60


class KnobError(Exception):
    """A knob could not be written; the text says why, for the operator."""


class Machine:
    """Reads and writes knobs below `root`."""

    def __init__(self, root="/"):
        self.root = pathlib.Path(root)
        self.is_real = self.root == pathlib.Path("/")
        fake = self.root / "usr/sbin/ethtool"
        # The packages of some systems keep it outside of an ordinary user's PATH.
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        # What ethtool has said since something was last written: a NIC has many knobs, and each question takes a process.
        self.said = {}
        self.ethtool_path = shutil.which("ethtool", path=path) if self.is_real else str(fake) if fake.exists() else None

    def path(self, absolute):
        """Where `absolute` lies below the root."""
        return self.root / str(absolute).lstrip("/")

    def text(self, absolute):
        """What a file says, its white space made single blanks; None if it is not there or says nothing to us."""
        try:
            return " ".join(self.path(absolute).read_text().split())
        except (OSError, UnicodeDecodeError):
            return None

    def names(self, absolute):
        """What lies in a directory, sorted; nothing if there is none."""
        try:
            return sorted(os.listdir(self.path(absolute)))
        except OSError:
            return []

    def boot(self):
        """Which start of the machine this is: settings of an earlier one are gone."""
        return self.text("/proc/sys/kernel/random/boot_id") or "unknown"

    def processes(self, name):
        """Numbers of the processes of that name."""
        numbers = [number for number in self.names("/proc") if number.isdigit()]
        return [number for number in numbers if self.text(f"/proc/{number}/comm") == name]

    def read(self, knob):
        """The present value; None where this machine has no such knob, or one that nobody may write."""
        kind, _, rest = knob.partition(":")
        if kind == "ethtool":
            return self._read_ethtool(*rest.split(":"))
        path = self.path(rest)
        if not path.exists() or not path.stat().st_mode & 0o222:
            return None
        text = self.text(rest)
        if kind == "choice" and text is not None:
            chosen = re.search(r"\[(\S+)\]", text)
            return chosen and chosen.group(1)
        return text

    def write(self, knob, value):
        """Writes it, or raises KnobError."""
        self.said.clear()
        kind, _, rest = knob.partition(":")
        if kind == "ethtool":
            self._write_ethtool(*rest.split(":"), value)
            return
        if kind not in ("file", "choice") or ".." in rest or not rest.startswith(WRITABLE):
            raise KnobError(f"{knob} is no knob of this program")
        try:
            # One write call: the kernel takes a value as a whole. An empty one needs its line end to be one at all.
            descriptor = os.open(self.path(rest), os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(descriptor, f"{value}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KnobError(error.strerror) from error

    def ethtool(self, *arguments):
        """What ethtool prints, or KnobError."""
        if arguments not in self.said:
            self.said[arguments] = self._run_ethtool(*arguments)
        return self.said[arguments]

    def _run_ethtool(self, *arguments):
        if self.ethtool_path is None:
            raise KnobError("ethtool is not installed")
        try:
            done = subprocess.run(
                [self.ethtool_path, *arguments], capture_output=True, text=True, timeout=ETHTOOL_SECONDS_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KnobError(f"ethtool {' '.join(arguments)}: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise KnobError(f"ethtool {' '.join(arguments)}: {said[-1]}")
        return done.stdout

    def _read_ethtool(self, nic, part, name):
        try:
            return READERS[part](self, nic, name)
        except KnobError:
            return None

    def _write_ethtool(self, nic, part, name, value):
        if part not in WRITERS or not re.fullmatch(r"[\w.@-]{1,15}", nic) or nic.startswith("-"):
            raise KnobError(f"ethtool:{nic}:{part}:{name} is no knob of this program")
        self._run_ethtool(WRITERS[part], nic, *((name, value) if part != "hash" else ("rx-flow-hash", name, value)))


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


def _read_channels(machine, nic, name):
    return figures(machine.ethtool("-l", nic))[1].get(name)


def _read_ring(machine, nic, name):
    return figures(machine.ethtool("-g", nic))[1].get(name)


def _read_coalesce(machine, nic, name):
    text = machine.ethtool("-c", nic)
    if name == "adaptive-rx":
        found = re.search(r"^Adaptive RX: (on|off)\b", text, re.M)
    else:
        found = re.search(rf"^{re.escape(name)}:\s*(\d+)\s*$", text, re.M)
    return found and found.group(1)


def _read_feature(machine, nic, name):
    # Features that the hardware holds fast are printed with [fixed] behind them: they are no knobs.
    found = re.search(rf"^\s*{re.escape(name)}: (on|off)\s*$", machine.ethtool("-k", nic), re.M)
    return found and found.group(1)


def _read_hash(machine, nic, name):
    text = machine.ethtool("-n", nic, "rx-flow-hash", name)
    fields = (("IP SA", "s"), ("IP DA", "d"), ("L4 bytes 0 & 1", "f"), ("L4 bytes 2 & 3", "n"))
    return "".join(letter for words, letter in fields if re.search(rf"^\s*{words}", text, re.M)) or None


READERS = {"channels": _read_channels, "ring": _read_ring, "coalesce": _read_coalesce, "feature": _read_feature,
           "hash": _read_hash}
WRITERS = {"channels": "-L", "ring": "-G", "coalesce": "-C", "feature": "-K", "hash": "-N"}
