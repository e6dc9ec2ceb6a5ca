"""The scenario that ``benchbox init`` writes: short, commented, valid as it stands. Pure."""

import re
from typing import Final

_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9]+")
_MAX_NAME: Final = 64

_TEXT: Final = """\
# What does ... cost: natively, in a container, in a virtual machine?
#
#   benchbox validate {file}     is it right?
#   benchbox plan {file}         what would happen, how long would it take?
#   benchbox run {file}
#
# Every key: docs/scenarios.md, or for your editor `benchbox schema`.
name: {name}
description: Time from the request to the workload's first instruction

image: minimal                  # the root file system, the same in every environment
baseline: native                # what the others are compared with: a label from below

rounds: 20                      # samples of each; below 6 there are no intervals
seed: 1                         # decides the order within each round

resources:                      # what one instance may use, with the same meaning everywhere
  cpus: 1
  memory: 256MiB
  pids: 512
  # cpu_quota: 0.5              # half of one CPU's time
  # disk: 10GiB                 # what one instance may write into /data and its layer

environments:                   # one that this host cannot offer is skipped, with the reason
  - native                      # no isolation: the image's root, in a cgroup
  - container                   # benchbox's own: namespaces, overlay, cgroups
  - kind: vm                    # a libvirt guest
    accelerator: auto           # auto: KVM where a guest boots with it, else emulation; kvm: that or a failure
  # - kind: container           # the same kind again, with other options and a label of its own
  #   label: container-read-only
  #   root: bind

workloads:
  - startup                     # writes one byte and ends: what the environment's start costs
  # - name: command             # any program of the image
  #   argv: [/bin/busybox, sh, -c, "exec /bin/ready"]
"""


def starter(stem: str, file: str) -> str:
    """Return a starter scenario; its name comes from ``stem``, the commands in its comments are about ``file``."""
    return _TEXT.format(name=name_of(stem), file=file)


def name_of(stem: str) -> str:
    """Return the scenario name nearest to ``stem``: lower-case letters, digits and single dashes."""
    return _NOT_IN_A_NAME.sub("-", stem.lower()).strip("-")[:_MAX_NAME].rstrip("-") or "scenario"
