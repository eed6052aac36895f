"""What was there before: the file that a revert goes by.

It is written before the first knob is turned, and replaced as a whole, so that a crash at any moment leaves either the old
values of all that may have been changed, or no change. Settings of the kernel do not survive a restart of the machine; a
state of an earlier start therefore describes nothing any more.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import stat
from dataclasses import asdict, dataclass

VERSION = 1


class StateError(Exception):
    """The state cannot be used; the text says what the operator can do."""


@dataclass
class Entry:
    """One knob that was, or may have been, turned."""

    knob: str
    name: str
    topic: str
    old: str
    # What the kernel made of what we wrote; None while that is not known, or when only a neighbour was turned.
    written: str | None = None
    # Undoing this one resets others of the same NIC.
    resets: str = ""


class State:
    """The entries, in the order in which they were applied, and the file that keeps them."""

    def __init__(self, path, boot):
        self.path = pathlib.Path(path)
        self.boot = boot
        self.entries = {}
        self.is_stale = False

    @contextlib.contextmanager
    def locked(self):
        """One playbook at a time; makes the directory, which is the owner's alone."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror}: --state names another place") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StateError(f"{self.path}: another playbook is at work") from error
        try:
            yield self
        finally:
            os.close(lock)

    def load(self):
        """Reads the file, if there is one. What an earlier start of the machine left is stale, and dropped."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return self
        except PermissionError as error:
            raise StateError(f"{self.path}: {error.strerror}: what was set is known to root alone") from error
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror}") from error
        with os.fdopen(descriptor, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            # Its values are written with our rights: nobody else may have a say in them.
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise StateError(f"{self.path}: others than its owner, root or you, may write to it: not believed")
            try:
                kept = json.load(file)
                if kept["version"] != VERSION:
                    raise ValueError(f"version {kept['version']}")
                entries = [Entry(**entry) for entry in kept["entries"]]
                boot = kept["boot"]
            except (ValueError, KeyError, TypeError) as error:
                raise StateError(
                    f"{self.path}: not a state of this program ({error}): move it away if nothing is to be reverted") from error
        if boot != self.boot:
            self.is_stale = bool(entries)
            return self
        self.entries = {entry.knob: entry for entry in entries}
        return self

    def save(self):
        """Replaces the file; an empty state removes it."""
        try:
            if self.entries:
                beside = self.path.with_suffix(".tmp")
                text = json.dumps({"version": VERSION, "boot": self.boot,
                                   "entries": [asdict(entry) for entry in self.entries.values()]}, indent=1)
                beside.unlink(missing_ok=True)
                descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(self.path)
            else:
                self.path.unlink(missing_ok=True)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror}: nothing more is changed") from error
