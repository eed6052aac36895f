"""Pages, their place and their way to disk."""
from steps import Step, at_most

THP = "/sys/kernel/mm/transparent_hugepage"


def not_never(now, _wanted):
    """The node asks for huge pages itself, so both words will do."""
    return now in ("madvise", "always")


def not_always(now, _wanted):
    """Only `always` makes everybody wait for compaction."""
    return now != "always"


def has_swap(machine):
    """Whether there is any."""
    return len((machine.text("/proc/swaps") or "").split("/")) > 1


def nodes(machine):
    """NUMA nodes of the machine."""
    return [name for name in machine.names("/sys/devices/system/node") if name[:4] == "node" and name[4:].isdigit()]


def steps(machine, _wishes):
    """Huge pages on demand, no page that moves or leaves by itself."""
    yield Step("memory", "transparent huge pages", "madvise",
               "the node asks for huge pages for its cache and lists (madvise); with `never` they are not given",
               f"choice:{THP}/enabled", not_never, absent="this kernel has no transparent huge pages")
    yield Step("memory", "compaction for huge pages", "defer+madvise",
               "`always` makes every page fault wait until the kernel has put a huge page together", f"choice:{THP}/defrag",
               not_always, absent="this kernel has no transparent huge pages")
    reserved = machine.text("/proc/sys/vm/nr_hugepages")
    yield Step("memory", "huge pages set aside", "0",
               "the node does not use reserved huge pages (hugetlbfs): what is set aside for nobody is missing in its cache",
               now=reserved, is_met=at_most, is_advice=True, by_hand="vm.nr_hugepages=0, unless another program needs them",
               absent="this kernel has no reserved huge pages")
    balancing = "file:/proc/sys/kernel/numa_balancing"
    yield Step("memory", "kernel.numa_balancing", "0",
               "unmaps pages to see who uses them and moves them: page faults on a hot path whose memory already lies with its core",
               balancing if len(nodes(machine)) > 1 else None, absent="one NUMA node")
    yield Step("memory", "vm.zone_reclaim_mode", "0",
               "frees pages of the own node, at length, before it takes one of another node",
               "file:/proc/sys/vm/zone_reclaim_mode" if len(nodes(machine)) > 1 else None, absent="one NUMA node")
    yield Step("memory", "vm.swappiness", "1", "a cache entry that has to come from disk is slower than asking an upstream",
               "file:/proc/sys/vm/swappiness" if has_swap(machine) else None, at_most, absent="no swap")
