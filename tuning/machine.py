"""The machine that is tuned: files of the kernel below one root, and ethtool(8).

A knob is one thing that can be read and, mostly, written. Its address is a text that the state file keeps, so that a later
run finds it again without the options of the first:

    file:/proc/sys/net/core/rmem_max        the whole file
    choice:/sys/kernel/mm/.../enabled       the word in brackets, as in `always [madvise] never`
    ethtool:eth0:channels:combined          one figure of a NIC (see ethtool.py)

Everything lies below `root`, ethtool included, so that tests can have a machine of their own.
"""
import os
import pathlib
import re

from ethtool import Ethtool, KnobError

# Where a knob may lie: a state file can make nobody write elsewhere.
WRITABLE = ("/proc/sys/", "/proc/irq/", "/sys/")


class Machine:
    """Reads and writes knobs below `root`."""

    def __init__(self, root="/"):
        self.root = pathlib.Path(root)
        self.is_real = self.root == pathlib.Path("/")
        self.ethtool = Ethtool(self.root, self.is_real)

    def path(self, absolute):
        """Where `absolute` lies below the root."""
        return self.root / str(absolute).lstrip("/")

    def text(self, absolute):
        """What a file says, its white space made single blanks; None if it is not there or says nothing to us."""
        try:
            return " ".join(self.path(absolute).read_text().split())
        except (OSError, UnicodeDecodeError):
            return None

    def lines(self, absolute):
        """What a file says, line by line; nothing if it is not there."""
        try:
            return self.path(absolute).read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return []

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
            return self.ethtool.read(*rest.split(":"))
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
        kind, _, rest = knob.partition(":")
        if kind == "ethtool":
            self.ethtool.write(*rest.split(":"), value)
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
