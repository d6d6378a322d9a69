"""The process node: a kubelet stand-in that runs each container as a bubblewrap sandbox of the host.

`rectrain-local` starts it as `python -m rectrain_local.node CONFIG.json`. It is a node like any other to the
control plane (`system:node:<name>`, Node object, Lease, pod status, logs), so manifests, Jobs and controllers
behave as on a cluster. It is a stand-in all the same:

- nothing is pulled: an image name selects an environment of the host, and images have no entrypoint here;
- CPU and memory limits are not enforced, nor are sizes of volumes on disk; requests count for the scheduler
  alone, and `OOMKilled` is never reported, because without cgroups it can't be known;
- all pods share the host's network, each at its own loopback address (`status.podIP`): a program listens
  there, a Service's port is its target port, and names come from /etc/hosts, not from DNS;
- one user per sandbox, mapped onto the caller's; `fsGroup`, seccomp and SELinux settings have no effect;
- exec, attach and port-forward are refused.
"""
