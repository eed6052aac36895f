"""The cores that workers are pinned to: their clock, their sleep, their company."""
from placement import CPU, numbers, siblings, spelled
from steps import Step, at_most


def sleep_states(machine, core):
    """Idle states of `core`: directory, name, microseconds to wake up."""
    for state in machine.names(f"{CPU}/cpu{core}/cpuidle"):
        directory = f"{CPU}/cpu{core}/cpuidle/{state}"
        latency = machine.text(f"{directory}/latency")
        if latency and latency.isdigit():
            yield directory, machine.text(f"{directory}/name") or state, int(latency)


def power(machine, wishes):
    """Governor, preference and sleep states of each core."""
    for core in wishes.cores:
        frequency = f"{CPU}/cpu{core}/cpufreq"
        # Before the governor, and so, on the way back, behind it: under the governor `performance` intel_pstate and amd_pstate
        # refuse every other preference.
        if machine.text(f"{frequency}/energy_performance_preference") is not None:
            yield Step("cpu", f"energy preference of CPU {core}", "performance",
                       "the hardware's own governor has the last word over the clock, and goes by this",
                       f"file:{frequency}/energy_performance_preference")
        yield Step("cpu", f"governor of CPU {core}", "performance",
                   "a core that clocks down between bursts answers the first queries of each burst at a fraction of its speed",
                   f"file:{frequency}/scaling_governor", absent="no cpufreq: the hypervisor or the firmware governs the clock")
        deep = [state for state in sleep_states(machine, core) if state[2] > wishes.wake_us]
        for directory, name, latency in deep:
            yield Step("cpu", f"sleep state {name} of CPU {core} off", "1",
                       f"takes {latency} us to wake from, many times what an answer takes (--wake {wishes.wake_us} is the most allowed);"
                       " costs power, and turbo of the other cores", f"file:{directory}/disable")
        if not deep:
            yield Step("cpu", f"sleep states of CPU {core}", "short",
                       "wake-ups that take longer than an answer", now=None if machine.text(f"{CPU}/cpu{core}/cpuidle/state0/name")
                       is None else "short", absent="no cpuidle: the hypervisor decides how deep the core sleeps")


def company(machine, wishes):
    """Who else runs on the cores: the boot line decides."""
    cores = spelled(wishes.cores)
    isolated = numbers(machine.text(f"{CPU}/isolated") or "")
    # The boot line takes effect before anything runs; nothing can set it later.
    yield Step("cpu", "cores left to the workers alone (isolcpus)", cores,
               "other threads are not put there, so no worker waits for a time slice. Only a process that is told to uses isolated"
               " cores: CPUAffinity= in the unit", now=spelled([core for core in wishes.cores if core in isolated]),
               is_advice=True, by_hand=f"boot with isolcpus={cores} where the node has the machine for itself, and leave other cores"
               " for everything else")
    quiet = machine.text(f"{CPU}/nohz_full")
    quiet = numbers(quiet) if quiet and quiet != "(null)" else []
    yield Step("cpu", "cores without a timer tick (nohz_full)", cores,
               "a busy worker is not interrupted up to a thousand times a second to see whether another thread wants to run",
               now=spelled([core for core in wishes.cores if core in quiet]), is_advice=True,
               by_hand=f"boot with nohz_full={cores} rcu_nocbs={cores} (a kernel built with CONFIG_NO_HZ_FULL); at least one core must"
               " not be among them")


def threads(machine, wishes):
    """Two workers on one physical core share its units."""
    taken = {}
    for core in wishes.cores:
        taken.setdefault(tuple(siblings(machine, core)), []).append(core)
    shared = [spelled(cores) for cores in taken.values() if len(cores) > 1]
    has_threads = any(len(group) > 1 for group in taken)
    yield Step("cpu", "one worker per physical core (SMT)", "0",
               "two workers on the hardware threads of one core together do more than one does, but each is slower and the slowest"
               " answers take longer", now=str(len(shared)) if has_threads else None, is_met=at_most, is_advice=True,
               by_hand="take one of each of these: " + "; ".join(shared) if shared else "", absent="no core has two threads")


def steps(machine, wishes):
    """All of it."""
    yield from power(machine, wishes)
    yield from company(machine, wishes)
    yield from threads(machine, wishes)
