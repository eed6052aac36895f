"""The topics, in the order in which they are applied."""
from . import cpu, memory, nic, sysctl, uring

ALL = {"sysctl": sysctl.steps, "nic": nic.steps, "cpu": cpu.steps, "memory": memory.steps, "uring": uring.steps}
