"""What was found and done, for people and for programs."""
import json
import textwrap

WIDTH = 118
HEADS = {"met": "ok", "missing": "MISSING", "advice": "advice", "changed": "set", "would change": "would set", "failed": "FAILED",
         "left": "left"}


def score(findings):
    """How many of those that count are as they should be."""
    counted = [finding for finding in findings if finding.is_scored()]
    return sum(finding.is_met() for finding in counted), len(counted)


def percent(met, of):
    """Nothing to do is all done."""
    return 100 * met // of if of else 100


def shown(value):
    """An empty value is one, too."""
    return {None: "-", "": "(empty)"}.get(value, value)


def line(finding, width):
    """One step: its state, its value, what it becomes or should be."""
    step = finding.step
    text = f"  {HEADS[finding.state]:9} {step.name:{width}}  {shown(finding.old)}"
    if finding.state != "met":
        text += f" -> {shown(step.wanted if finding.new is None else finding.new)}"
    return text


def wrapped(text):
    """A paragraph below a step."""
    return textwrap.wrap(text, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12)


def text(findings, summary):
    """The table for people, topic by topic; what does not apply comes last in each."""
    lines = []
    for topic in dict.fromkeys(finding.step.topic for finding in findings):
        lines.append(topic)
        here = [finding for finding in findings if finding.step.topic == topic]
        present = [finding for finding in here if finding.state != "absent"]
        width = max((len(finding.step.name) for finding in present), default=0)
        told = None
        for finding in present:
            lines.append(line(finding, width))
            if finding.cause:
                lines += wrapped(finding.cause)
            elif finding.state in ("missing", "advice") and finding.step.by_hand:
                lines += wrapped(f"by hand: {finding.step.by_hand}")
            if finding.step.reason != told:
                told = finding.step.reason
                lines += wrapped(told)
        absent = {}
        for finding in here:
            if finding.state == "absent":
                absent.setdefault(finding.cause, []).append(finding.step.name)
        for cause, names in absent.items():
            rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
            lines.append(f"  n/a       {', '.join(names[:4])}{rest}: {cause}")
        lines.append("")
    return "\n".join([*lines, summary]) + "\n"


def as_json(findings, summary):
    """The same for programs."""
    met, of = score(findings)
    steps = [{"topic": finding.step.topic, "name": finding.step.name, "state": finding.state, "old": finding.old,
              "new": finding.new, "wanted": finding.step.wanted, "reason": finding.step.reason, "knob": finding.step.knob,
              "by_hand": finding.step.by_hand or None, "cause": finding.cause or None} for finding in findings]
    return json.dumps({"summary": summary, "met": met, "of": of, "percent": percent(met, of), "steps": steps}, indent=1) + "\n"


def sysctls(findings):
    """Those of them that a file of /etc/sysctl.d can tell, with their reasons: what is more than enough stays as it is."""
    prefix = "file:/proc/sys/"
    lines = ["# Kernel settings for a node, written by `tuning/playbook sysctl.conf`.",
             "# To /etc/sysctl.d/60-heimdall-uring.conf, then `sysctl --system`."]
    for finding in findings:
        step = finding.step
        value = finding.old if finding.state == "met" else step.wanted
        if finding.state in ("met", "missing") and value and (step.knob or "").startswith(prefix):
            lines += [f"# {step.reason}", f"{step.knob.removeprefix(prefix).replace('/', '.')} = {value}"]
    return "\n".join(lines) + "\n"
