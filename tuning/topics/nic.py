"""The NIC: one queue per worker, each served by the worker's own core."""
import re

from ethtool import KnobError, figures
from steps import Step, at_least, same_mask

RING_WANTED = 4096
INTERRUPT_US_MAX = 32


# Flag of a route that refuses (RTF_REJECT of linux/ipv6_route.h): an IPv6 table has such a default of its own.
REJECTS = 0x200
# Drivers name the interrupts of their queues in many ways; tests/interrupts.txt has samples. `ntfy-blk` is gve's: first the
# blocks of all queues that send, then as many of those that receive.
QUEUE = re.compile(r"(?:(?:[rt]x|fp|queue|comp|input|output|q|mlx4)[-._:]?|(?P<gve>ntfy-bl(?:oc)?k\.?)|q(?=\d+-[rt]x$))"
                   r"(?P<number>\d+)(?:-[rt]x)?(?:@.*)?$", re.I)


def default_route(machine):
    """The interfaces over which this machine reaches the world."""
    routes = [line.split() for line in machine.lines("/proc/net/route")[1:]]
    found = [fields[0] for fields in routes if len(fields) > 7 and fields[1] == fields[7] == "00000000"]
    for fields in map(str.split, machine.lines("/proc/net/ipv6_route")):
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and not int(fields[8], 16) & REJECTS:
            found.append(fields[9])
    # A route that leads nowhere has a star for its interface.
    return [name for name in dict.fromkeys(found) if name not in ("lo", "*")]


def has_hardware(machine, name):
    """Whether it is a NIC, and not an interface that the kernel has made up."""
    return "device" in machine.names(f"/sys/class/net/{name}")


def below(machine, names):
    """The NICs that interfaces are made of: a bond's, a bridge's, a VLAN's. An interface without any stays itself."""
    found = []
    for name in names:
        seen, waiting = [], [name]
        while waiting:
            here = waiting.pop(0)
            if here not in seen:
                seen.append(here)
                if not has_hardware(machine, here):
                    lower = [file[6:] for file in machine.names(f"/sys/class/net/{here}") if file.startswith("lower_")]
                    waiting += lower
        found += [here for here in seen if has_hardware(machine, here)] or [name]
    return list(dict.fromkeys(found))


def mask(cores):
    """A CPU mask as the kernel prints it: words of 32 bits, with commas between them."""
    digits = f"{sum(1 << core for core in cores):x}"
    words = []
    while digits:
        words.insert(0, digits[-8:])
        digits = digits[:-8]
    return ",".join([words[0], *(word.rjust(8, "0") for word in words[1:])])


def share(cores, index, count):
    """The cores of queue `index` of `count`: one each, or several where there are fewer queues than cores."""
    if count >= len(cores):
        return [cores[index % len(cores)]]
    return cores[index::count]


def is_others(wishes, queue):
    """With --keep-queues, those beyond the workers' are left as others have them."""
    return wishes.keep_queues and queue >= len(wishes.cores)


def queues(machine, nic, kind):
    """Numbers of the queues of a kind, rx or tx."""
    found = [re.fullmatch(rf"{kind}-(\d+)", name) for name in machine.names(f"/sys/class/net/{nic}/queues")]
    return sorted(int(match.group(1)) for match in found if match)


def number_of_queues(machine, wishes, nic):
    """As many queues as workers."""
    try:
        most, now = figures(machine.ethtool.show("-l", nic))
    except KnobError as error:
        yield Step("nic", f"{nic}: queues", str(len(wishes.cores)), "one queue per worker", absent=str(error))
        return
    # A driver has combined queues, or queues apart for each direction.
    kinds = [kind for kind in ("combined", "rx", "tx") if int(most.get(kind, 0)) > 0 and kind in now]
    if "combined" in kinds:
        kinds = ["combined"]
    for kind in kinds:
        wanted = min(len(wishes.cores), int(most[kind]))
        if wishes.keep_queues:
            yield Step("nic", f"{nic}: {kind} queues", now[kind], "kept (--keep-queues): others on this machine use them",
                       now=now[kind])
            continue
        yield Step("nic", f"{nic}: {kind} queues", str(wanted),
                   f"one queue per worker, so that no core takes interrupts for another; the NIC has up to {most[kind]}. The link"
                   " may pause for a moment", f"ethtool:{nic}:channels:{kind}", resets=nic)
    if not kinds:
        yield Step("nic", f"{nic}: queues", str(len(wishes.cores)), "one queue per worker", absent="the driver has no choice of queues")


def spread(machine, nic):
    """Which queue a datagram goes to: by its ports, too."""
    for family in ("udp4", "udp6"):
        yield Step("nic", f"{nic}: {family} spread by", "sdfn",
                   "addresses and ports (sdfn): by addresses alone (sd), all queries of one forwarder or load balancer fill one queue",
                   f"ethtool:{nic}:hash:{family}", absent="the driver cannot say how it spreads datagrams")


def rings(machine, nic):
    """Room between NIC and kernel."""
    try:
        most, _ = figures(machine.ethtool.show("-g", nic))
    except KnobError as error:
        yield Step("nic", f"{nic}: ring", str(RING_WANTED), "room for bursts", absent=str(error))
        return
    for kind in ("rx", "tx"):
        wanted = min(RING_WANTED, int(most.get(kind, 0)))
        if wanted:
            yield Step("nic", f"{nic}: {kind} ring", str(wanted),
                       "datagrams between NIC and kernel while the core does something else: a full one drops (rx_missed, rx_no_buffer"
                       " and the like in ethtool -S). The link may pause for a moment", f"ethtool:{nic}:ring:{kind}", at_least)


def moderation(machine, nic):
    """How long the NIC waits before it interrupts."""
    adaptive = f"ethtool:{nic}:coalesce:adaptive-rx"
    if machine.read(adaptive) is not None:
        yield Step("nic", f"{nic}: adaptive interrupts", "on",
                   "at once when it is quiet, in bunches when it is not: the driver goes by the rate", adaptive)
        return
    yield Step("nic", f"{nic}: interrupt after (us)", str(INTERRUPT_US_MAX),
               f"between 1 and {INTERRUPT_US_MAX} us: 0 is an interrupt per datagram, more is waiting that every answer pays for",
               f"ethtool:{nic}:coalesce:rx-usecs", lambda now, wanted: 0 < int(now) <= int(wanted),
               absent="the driver cannot say when it interrupts")


def offloads(nic):
    """What the NIC and its driver do with datagrams before we see them."""
    for name, told in (("generic-receive-offload", "GRO"), ("large-receive-offload", "LRO")):
        yield Step("nic", f"{nic}: {told}", "off",
                   "looks for packets to merge: queries are single datagrams of ever new flows, there is nothing to merge",
                   f"ethtool:{nic}:feature:{name}", absent="held fast by the driver")


def interrupts(machine, nic):
    """Interrupts of the NIC's queues: number, name, queue."""
    numbers = set()
    # A virtio device has its interrupts at the PCI device above it.
    for directory in (f"/sys/class/net/{nic}/device/msi_irqs", f"/sys/class/net/{nic}/device/../msi_irqs"):
        numbers.update(machine.names(directory))
    found = []
    for line in machine.lines("/proc/interrupts"):
        number, _, rest = line.strip().partition(":")
        if number not in numbers or not rest.split():
            continue
        name = rest.split()[-1]
        queue = QUEUE.search(name)
        if queue:
            found.append((number, name, int(queue["number"]), queue["gve"]))
    half = sum(bool(is_block) for *_, is_block in found) // 2 or 1
    return [(number, name, queue % half if is_block else queue) for number, name, queue, is_block in found]


def affinity(machine, wishes, nic):
    """Each queue's interrupt to the core of its worker."""
    found = interrupts(machine, nic)
    count = len({queue for _, _, queue in found})
    for number, name, queue in found:
        if is_others(wishes, queue):
            continue
        core = share(wishes.cores, queue, count)[0]
        yield Step("nic", f"{nic}: interrupt {number} ({name})", str(core),
                   "a datagram is handled on the core whose worker answers it, its data still in that core's cache",
                   f"file:/proc/irq/{number}/smp_affinity_list")
    if not found:
        yield Step("nic", f"{nic}: interrupts of queues", "one core each", "one core per queue",
                   absent="no interrupts of queues: a virtual interface")
    balancers = machine.processes("irqbalance")
    yield Step("nic", f"{nic}: irqbalance", "not running", "moves interrupts to other cores every ten seconds",
               now=("running" if balancers else "not running") if found else None,
               by_hand="systemctl disable --now irqbalance, or IRQBALANCE_BANNED_CPULIST for these cores",
               absent="there are no interrupts to move")


def steering(machine, wishes, nic):
    """What the kernel steers by itself: out through the own queue; in by the NIC, or by software where it has too few queues."""
    count = len(queues(machine, nic, "tx"))
    for index in queues(machine, nic, "tx"):
        if is_others(wishes, index):
            continue
        cores = share(wishes.cores, index, count)
        yield Step("nic", f"{nic}: tx-{index} is used by (XPS mask)", mask(cores),
                   "a worker's replies leave through its own queue: no lock is shared, and the queue is cleaned on the same core",
                   f"file:/sys/class/net/{nic}/queues/tx-{index}/xps_cpus" if count > 1 else None, same_mask,
                   absent="one queue: there is no choice")
    count = len(queues(machine, nic, "rx"))
    for index in queues(machine, nic, "rx"):
        if is_others(wishes, index):
            continue
        cores = share(wishes.cores, index, count)
        wanted, reason = "0", "the NIC has spread datagrams over the cores already: a second time only moves them between caches"
        if len(cores) > 1:
            wanted, reason = mask(cores), f"{count} queue(s) for {len(wishes.cores)} workers: the kernel spreads what the NIC cannot"
        yield Step("nic", f"{nic}: rx-{index} is passed on to (RPS mask)", wanted, reason,
                   f"file:/sys/class/net/{nic}/queues/rx-{index}/rps_cpus", same_mask)
        yield Step("nic", f"{nic}: rx-{index} flows remembered (RFS)", "0",
                   "remembers which core read a flow last: each query is a flow of its own, so nothing is found",
                   f"file:/sys/class/net/{nic}/queues/rx-{index}/rps_flow_cnt")


def port_53(machine, wishes, nic):
    """Datagrams for port 53 to the first queues only, where the NIC has others for other services."""
    count = len(queues(machine, nic, "rx"))
    if not wishes.keep_queues or count <= len(wishes.cores):
        yield Step("nic", f"{nic}: port 53 to the workers' queues", "", "queues for others would take queries away from the workers",
                   absent="every queue belongs to a worker: the spread by addresses and ports is all it takes")
        return
    yield Step("nic", f"{nic}: filters by port", "on", f"{count} queues for {len(wishes.cores)} workers: without a rule most queries"
               " arrive at queues of other cores", f"ethtool:{nic}:feature:ntuple-filters", absent="the NIC has no filters by port")
    yield Step("nic", f"{nic}: port 53 to the workers' queues", "on",
               f"queries over UDP and TCP to the first {len(wishes.cores)} queues, whose interrupts go to the workers",
               f"ethtool:{nic}:steer:{len(wishes.cores)}", absent="the NIC shows no rules")


def steps(machine, wishes):
    """All of it, for each NIC."""
    # Without a NIC nothing below is looked at, and a machine is not as it should be by that alone.
    if not wishes.nics:
        yield Step("nic", "NIC", "named", "everything about the NIC", now="none",
                   by_hand="--nic NAME: there is no default route to find it by")
    for nic in wishes.nics:
        if not has_hardware(machine, nic):
            yield Step("nic", f"{nic}: hardware", "a NIC", "an interface without a device: what spreads, interrupts and drops lies"
                       " elsewhere, and was not looked at", now="none",
                       by_hand="--nic NAME of the NIC that clients come by; for a container, on its host")
        yield from number_of_queues(machine, wishes, nic)
        yield from spread(machine, nic)
        yield from rings(machine, nic)
        yield from moderation(machine, nic)
        yield from offloads(nic)
        yield from affinity(machine, wishes, nic)
        yield from steering(machine, wishes, nic)
        yield from port_53(machine, wishes, nic)
