"""Kernel settings of the network stack."""
import re

from steps import Step, at_least

# name, least, reason
FLOORS = (
    ("net.core.rmem_max", 4 << 20,
     "caps udp.socket_buffer (4 MiB) for a process without CAP_NET_ADMIN: a core that is away for a moment loses what finds no room"),
    ("net.core.wmem_max", 4 << 20,
     "the same for replies: a full send buffer drops them (udp_send_would_block_total)"),
    ("net.core.rmem_default", 256 << 10,
     "what sockets get that do not ask, such as those of ctl, scrapers and other programs beside the node"),
    ("net.core.wmem_default", 256 << 10, "the same for what they send"),
    ("net.core.netdev_max_backlog", 16384,
     "datagrams that may wait per CPU between interrupt and stack (RPS, loopback, veth); those beyond are dropped before any socket"),
    ("net.core.netdev_budget", 600,
     "datagrams that one round of the network interrupt may take; what a larger burst leaves over waits for the next round"),
    ("net.core.netdev_budget_usecs", 8000,
     "the same in time: the round ends at whichever comes first (third column of /proc/net/softnet_stat counts the early ends)"),
    ("net.core.somaxconn", 4096, "TCP connections that may wait to be accepted; caps the backlog that the node asks for"),
    ("net.ipv4.tcp_max_syn_backlog", 4096, "half-open connections per listener before SYN cookies are sent"),
)

# The range for whoever lets the kernel choose: connections to upstreams over TCP and TLS, and other programs. The node's own
# datagrams to upstreams leave from ports that it chooses itself, from 1024 on.
PORTS_WANTED = "10240 65535"


def knob(name):
    """The file of a sysctl."""
    return "file:/proc/sys/" + name.replace(".", "/")


def ports(text):
    """The ports of a list such as `80,3000-3002`; ValueError for what is none."""
    found = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        ends = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        span = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else ()
        if not span or span[0] < 1 or span[-1] > 65535:
            raise ValueError(f"{part}: expected ports such as 8053 or 3000-3010")
        found.update(span)
    return found


def spelled(numbers):
    """The reverse: runs as `first-last`, as the kernel prints them."""
    runs = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def covers(now, wanted):
    """Met by a wider range."""
    (first, last), (least, most) = (map(int, text.split()) for text in (now, wanted))
    return first <= least and last >= most


def holds(now, wanted):
    """Met when all wanted ports are among those of now."""
    return ports(wanted) <= ports(now)


def polling(machine, asked_us):
    """Looking at the NIC's queue instead of waiting: only for those who ask for it."""
    for name, told in (("net.core.busy_read", "reads"), ("net.core.busy_poll", "poll, select and epoll")):
        if asked_us:
            yield Step("sysctl", name, str(asked_us),
                       f"asked for (--busy-poll): microseconds for which {told} of programs on this machine look at the NIC's queue"
                       " before they sleep. Workers, which wait in io_uring, do not", knob(name))
            continue
        yield Step("sysctl", name, "0",
                   "workers wait in io_uring, and their sockets never do: they gain no wait that spins, while every other program's"
                   " does. --busy-poll 50 sets it for the sake of those", now=machine.read(knob(name)), is_advice=True,
                   by_hand=f"{name}=0, unless a program beside the node lives by it")


def steps(machine, wishes):
    """Sockets, queues of the stack, polling, ports."""
    for name, least, reason in FLOORS:
        yield Step("sysctl", name, str(least), reason, knob(name), at_least)
    yield from polling(machine, wishes.busy_poll_us)
    yield Step("sysctl", "net.ipv4.ip_local_port_range", PORTS_WANTED,
               "more source ports for connections to upstreams and for everybody else on the machine, while the node holds many",
               knob("net.ipv4.ip_local_port_range"), covers)
    reserved = knob("net.ipv4.ip_local_reserved_ports")
    wanted = spelled(ports(machine.read(reserved) or "") | ports(wishes.reserve))
    yield Step("sysctl", "net.ipv4.ip_local_reserved_ports", wanted,
               "the node draws source ports for its queries from 1024 on, but never these: ports of services on this machine"
               " (--reserve), the API's own among them, which would else find them taken", reserved, holds)
    tracked = machine.text("/proc/sys/net/netfilter/nf_conntrack_max")
    yield Step("sysctl", "connection tracking of DNS", "none",
               "conntrack is loaded and keeps a record of each query for 30 s or more: a full table drops queries, a large one costs"
               " a cache miss for each", now=tracked and f"up to {tracked} records", is_advice=True,
               by_hand="nft: udp dport 53 notrack and udp sport 53 notrack in a chain of type filter, hook prerouting and output,"
               " priority raw", absent="conntrack is not loaded")
