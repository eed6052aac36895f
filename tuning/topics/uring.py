"""What io_uring needs of kernel and limits."""
import re

from steps import Step, at_least

# What the unit grants; a node refuses to start below 512 KiB.
LOCKED_BYTES_WANTED = 8 << 20
DESCRIPTORS_WANTED = 65536


def limits(machine, name):
    """Soft limit of a node that runs, else of whoever asks; and whose it is."""
    node = machine.processes("heimdall-uring")[:1]
    whose = f"of the node that runs (process {node[0]})" if node else "of this shell"
    text = machine.text(f"/proc/{node[0] if node else 'self'}/limits") or ""
    found = re.search(rf"{name} (\d+|unlimited) (\d+|unlimited)", text)
    # The node raises its soft limit of descriptors to the hard one by itself.
    return (found and found.group(2 if name == "Max open files" else 1)), whose


def enough(now, wanted):
    """`unlimited` is."""
    return now == "unlimited" or int(now) >= int(wanted)


def multishot(now, wanted):
    """Versions by their first two numbers."""
    return [int(part) for part in now.split(".")[:2]] >= [int(part) for part in wanted.split(".")]


def steps(machine, _wishes):
    """The switch, the kernel, the limits."""
    yield Step("uring", "kernel.io_uring_disabled", "0",
               "2 keeps the node from starting, 1 lets only the privileged and kernel.io_uring_group in: the service has an ordinary user",
               "file:/proc/sys/kernel/io_uring_disabled", absent="this kernel cannot switch io_uring off")
    release = re.match(r"\d+\.\d+", machine.text("/proc/sys/kernel/osrelease") or "")
    yield Step("uring", "kernel version", "6.1",
               "6.0 brought multishot receives, without which a node runs with --io mmsg only; 6.1 lets completions wait until they"
               " are asked for", now=release and release.group(), is_met=multishot, by_hand="a newer kernel")
    locked, whose = limits(machine, "Max locked memory")
    yield Step("uring", "memory that may be locked", str(LOCKED_BYTES_WANTED),
               f"rings and their buffers are locked, and a node does not start below 512 KiB; the limit is that {whose}", now=locked, is_met=enough,
               by_hand="LimitMEMLOCK=8M in the unit, or ulimit -l 8192")
    descriptors, whose = limits(machine, "Max open files")
    yield Step("uring", "open descriptors", str(DESCRIPTORS_WANTED),
               f"TCP connections and source ports of all cores; the limit is that {whose}", now=descriptors, is_met=enough,
               by_hand=f"LimitNOFILE={DESCRIPTORS_WANTED} in the unit, or ulimit -n")
    yield Step("uring", "fs.nr_open", "1048576", "no limit of descriptors can be set above it", "file:/proc/sys/fs/nr_open", at_least)
