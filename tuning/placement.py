"""Where a node puts its workers: its CPUs, unless the operator names them.

A node that runs is asked by its threads; else its config, as the unit reads it; else the choice is made as the node makes it
(src/node/placement.rs): one CPU per physical core, of those that may be used, as many as the cgroup's quota pays for.
"""
import math
import re

try:
    import tomllib
except ImportError:
    # Python before 3.11.
    tomllib = None

CPU = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"
CGROUPS = "/sys/fs/cgroup"
# The one that deploy/systemd/heimdall-uring.service names.
CONFIG = "/etc/heimdall-uring/heimdall-uring.toml"
# Linux knows no more (CONFIG_NR_CPUS).
CPU_MAX = 8191
ALLOWED = '"auto", "numa:0" or CPUs such as "0-15" or "0,2,4-7"'


class PlacementError(ValueError):
    """The CPUs that were asked for cannot be had; the text says what can."""


def numbers(text):
    """CPUs of a list such as `0-3,8`; ValueError for what is none."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        ends = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        span = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else ()
        if not span or span[-1] > CPU_MAX:
            raise ValueError(f"{part}: expected CPUs such as 0-15 or 0,2,4-7")
        found += [number for number in span if number not in found]
    return found


def spelled(cores):
    """The reverse of `numbers`."""
    return ",".join(map(str, cores))


def siblings(machine, core):
    """The hardware threads of the core that `core` is one of."""
    text = machine.text(f"{CPU}/cpu{core}/topology/thread_siblings_list")
    return numbers(text) if text else [core]


def online(machine):
    """The CPUs of the machine."""
    return numbers(machine.text(f"{CPU}/online") or "0")


def allowed(machine):
    """Those of them that this process, and so a node that it starts, may use."""
    found = re.search(r"\bCpus_allowed_list: (\S+)", machine.text("/proc/self/status") or "")
    mask = numbers(found[1]) if found else None
    return [core for core in online(machine) if mask is None or core in mask]


def one_per_core(machine, cores):
    """The lowest of `cores` on each physical core."""
    chosen = {}
    for core in sorted(cores):
        chosen.setdefault(tuple(siblings(machine, core)), core)
    return list(chosen.values())


def quota(machine):
    """Whole CPUs that the cgroup of this process and those above it pay for; None without a quota."""
    own = re.search(r"^0::/?(.*)$", "\n".join(machine.lines("/proc/self/cgroup")), re.M)
    if not own:
        return None
    parts = own[1].split("/") if own[1] else []
    found = []
    for depth in range(len(parts) + 1):
        text = machine.text("/".join([CGROUPS, *parts[:depth], "cpu.max"])) or ""
        share = re.fullmatch(r"([0-9]+) ([0-9]+)", text)
        if share and int(share[1]) and int(share[2]):
            found.append(max(1, math.ceil(int(share[1]) / int(share[2]))))
    return min(found, default=None)


def automatic(machine):
    """What `auto` is."""
    cores = one_per_core(machine, allowed(machine))[:quota(machine)]
    if not cores:
        raise PlacementError("this process may use no CPU: see its affinity and its cpuset cgroup, or name the node's CPUs")
    return cores


def of_node(machine, node):
    """What `numa:N` is."""
    usable = {}
    for name in machine.names(NODES):
        if re.fullmatch(r"node[0-9]+", name):
            local = numbers(machine.text(f"{NODES}/{name}/cpulist") or "")
            usable[int(name[4:])] = [core for core in allowed(machine) if core in local]
    # A kernel without NUMA shows no nodes, and has one.
    usable = {number: cores for number, cores in usable.items() if cores} or {0: allowed(machine)}
    if node not in usable:
        raise PlacementError(f"NUMA node {node} has no CPU that may be used; nodes that have: {spelled(sorted(usable))}")
    return one_per_core(machine, usable[node])


def selected(machine, text):
    """The CPUs of a selection as the node takes it; PlacementError for none."""
    if text == "auto":
        return automatic(machine)
    node = re.fullmatch(r"numa:([0-9]{1,5})", text)
    if node:
        return of_node(machine, int(node[1]))
    try:
        cores = numbers(text)
    except ValueError:
        cores = []
    if not cores:
        raise PlacementError(f"{text}: expected {ALLOWED}")
    present = online(machine)
    absent = [core for core in cores if core not in present]
    if absent:
        raise PlacementError(f"CPU {spelled(absent)} is not online: there are {spelled(present)}")
    return cores


def running(machine):
    """The CPUs that workers are pinned to, of all nodes that run here."""
    found = set()
    for process in machine.processes("heimdall-uring"):
        for task in machine.names(f"/proc/{process}/task"):
            here = f"/proc/{process}/task/{task}"
            if re.fullmatch(r"core-[0-9]+", machine.text(f"{here}/comm") or ""):
                mask = re.search(r"\bCpus_allowed_list: ([0-9]+)(?= |$)", machine.text(f"{here}/status") or "")
                found.update([int(mask[1])] if mask else [])
    return [core for core in online(machine) if core in found]


def configured(machine):
    """`node.cores` of the config, `auto` where it says nothing; None where there is no config."""
    path = machine.path(CONFIG)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if tomllib is None:
        raise PlacementError(f"{CONFIG} cannot be read without Python 3.11 or later: name the node's CPUs")
    try:
        node = tomllib.loads(text).get("node", {})
    except tomllib.TOMLDecodeError as error:
        raise PlacementError(f"{CONFIG}: {error}") from error
    cores = node.get("cores", "auto") if isinstance(node, dict) else "auto"
    if not isinstance(cores, str):
        raise PlacementError(f"{CONFIG}: node.cores: {cores}: expected {ALLOWED}")
    return cores


def usual(machine):
    """Where the node's workers are, or will be, and how that is known."""
    cores = running(machine)
    if cores:
        return cores, "of the node that runs"
    try:
        text = configured(machine)
    except (OSError, UnicodeDecodeError) as error:
        # The config belongs to root and the service.
        return automatic(machine), f"one per physical core; {CONFIG}: {getattr(error, 'strerror', None) or 'is no text'}"
    if text in (None, "auto"):
        return automatic(machine), "one per physical core"
    try:
        return selected(machine, text), f"node.cores of {CONFIG}"
    except PlacementError as error:
        raise PlacementError(f"{CONFIG}: node.cores: {error}") from error
