"""Check, apply, revert."""
from ethtool import KnobError
from state import Entry
from steps import Finding, Step, look
from topics import ALL


def steps(machine, wishes):
    """The steps of the topics that were asked for."""
    for topic in wishes.topics:
        yield from ALL[topic](machine, wishes)


def check(machine, wishes):
    """What there is."""
    return [look(machine, step) for step in steps(machine, wishes)]


def apply(machine, wishes, state, dry_run):
    """Turns what is missing; one that cannot be turned stops none of the others."""
    before = check(machine, wishes)
    if dry_run:
        for finding in before:
            if finding.state == "missing" and finding.step.knob:
                finding.state, finding.new = "would change", finding.step.wanted
        return before
    olds = {finding.step.knob: finding.old for finding in before if finding.step.knob}
    reset = {finding.step.resets for finding in before if finding.state == "missing" and finding.step.resets}
    for finding in before:
        is_neighbour = any(finding.step.name.startswith(f"{nic}:") for nic in reset)
        if finding.state == "missing" or is_neighbour:
            _remember(state, finding, olds)
    state.save()
    done = []
    for step in steps(machine, wishes):
        finding = look(machine, step)
        if finding.state == "missing" and step.knob:
            if step.knob not in state.entries:
                # A queue that is there since the number of queues has changed.
                _remember(state, finding, olds)
                state.save()
            _turn(machine, state, finding)
        done.append(finding)
    # What could not be turned has nothing to be reverted.
    for finding in done:
        entry = state.entries.get(finding.step.knob)
        if finding.state == "failed" and entry and entry.written is None and machine.read(entry.knob) == entry.old:
            del state.entries[entry.knob]
    state.save()
    return done


def _remember(state, finding, olds):
    """The first old value stays the old value, however often the playbook is applied."""
    step = finding.step
    if step.knob and finding.old is not None and step.knob not in state.entries:
        old = olds.get(step.knob, finding.old)
        state.entries[step.knob] = Entry(step.knob, step.name, step.topic, old, resets=step.resets)


def _turn(machine, state, finding):
    step, entry = finding.step, state.entries[finding.step.knob]
    entry.written = None
    try:
        machine.write(step.knob, step.wanted)
    except KnobError as error:
        finding.state, finding.cause = "failed", str(error)
        return
    finding.new = machine.read(step.knob)
    entry.written = finding.new
    after = look(machine, step)
    if after.state == "met":
        finding.state = "changed"
    else:
        finding.state, finding.cause = "failed", f"the kernel made {finding.new} of it"


def revert(machine, topics, state, dry_run, force):
    """Gives back every old value, but for what somebody else has changed since."""
    found, reset = [], set()
    # The last comes first; but numbers of queues before all, as changing them resets what belongs to the queues.
    for entry in sorted(reversed(state.entries.values()), key=lambda entry: not entry.resets):
        if entry.topic not in topics:
            continue
        now = machine.read(entry.knob)
        step = Step(entry.topic, entry.name, entry.old, "as it was before the playbook", entry.knob)
        finding = Finding(step, now, "met")
        found.append(finding)
        is_reset = any(entry.name.startswith(f"{nic}:") for nic in reset)
        if now is None:
            finding.state, finding.cause = "absent", "is not there any more"
        elif now == entry.old:
            pass
        elif entry.written not in (None, now) and not is_reset and not force:
            finding.state = "left"
            finding.cause = f"somebody has changed it since from {entry.written}: left alone (--force gives {entry.old} back)"
            continue
        elif dry_run:
            finding.state, finding.new = "would change", entry.old
        else:
            _give_back(machine, entry, finding)
        if entry.resets and finding.state in ("changed", "would change"):
            reset.add(entry.resets)
        if not dry_run and finding.state not in ("failed", "left"):
            del state.entries[entry.knob]
    if not dry_run:
        state.save()
    return found


def _give_back(machine, entry, finding):
    try:
        machine.write(entry.knob, entry.old)
    except KnobError as error:
        finding.state, finding.cause = "failed", str(error)
        return
    finding.new = machine.read(entry.knob)
    finding.state = "changed"
    if finding.new != entry.old:
        finding.state, finding.cause = "failed", f"the kernel made {finding.new} of it"
