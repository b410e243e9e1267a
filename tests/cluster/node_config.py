"""What the programs of a node are told: a network of one bridge, real authentication, nothing written elsewhere.

Pure: folders and addresses come in, texts and JSON go out. Values that look odd are here because a machine that is
itself a container, has cgroup v1 or has no iptables must do.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.certificates import Certificate

Json = dict[str, Any]

NODE_NAME: Final = "everwarm-node"
BRIDGE: Final = "everwarm0"
NODE_IP: Final = "10.245.0.1"
"""The bridge's address, which is the node's, the API server's and the DNS server's; pods reach the host by it."""
POD_CIDR: Final = "10.245.0.0/24"
DOMAIN: Final = "cluster.local"
DNS_READY_PORT: Final = 8181
PROXY_HEALTH_PORT: Final = 10256
PAUSE_IMAGE: Final = "everwarm.invalid/pause:1"  # a registry that cannot be: it is never pulled


@dataclass(frozen=True, slots=True)
class NodeFolders:
    """Where a node's programs write: *state* goes when the node goes, *images* (containerd's) stays."""

    state: Path
    images: Path

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.state / "containerd.sock"


def containerd_config(folders: NodeFolders, cni_plugins: Path) -> str:
    """TOML of containerd 1.6 and later."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{folders.images}"
state = "{folders.state / "containerd"}"
[grpc]
  address = "{folders.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folders.state / "opt"}"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  # A container or a small machine may lack the right to lower an oom_score_adj.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [{cri}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [{cri}.containerd.runtimes.runc.options]
      Root = "{folders.state / "runc"}"
      SystemdCgroup = false
  [{cri}.cni]
    bin_dir = "{cni_plugins}"
    conf_dir = "{folders.state / "cni"}"
"""


def cni_config(folders: NodeFolders) -> Json:
    """The pods' network: one bridge, behind which the host is. No masquerading, so pods reach nothing outside."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,  # a pod may find itself behind its own Service
        "ipam": {
            "type": "host-local",
            "dataDir": str(folders.state / "ipam"),
            "ranges": [[{"subnet": POD_CIDR, "gateway": NODE_IP}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "1.0.0", "name": "everwarm", "plugins": [bridge]}


def kubelet_config(folders: NodeFolders, server: Certificate, authority: Path) -> Json:
    """The kubelet's; *server* is its certificate, *authority* what signed those of its callers."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "healthzPort": 0,
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [NODE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": "",  # names of the host's network mean nothing to pods
        "containerRuntimeEndpoint": f"unix://{folders.socket}",
        "podLogsDir": str(folders.state / "pod-logs"),
        "volumePluginDir": str(folders.state / "volume-plugins"),
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",  # containerd before 2.0 cannot tell it, and there may be no systemd
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # nobody would remove them
        "oomScoreAdj": 0,  # lowering it takes a right that a container may lack
        # What the machine has besides is not the tests' business: collect no image, evict only at the very end.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
    }


def proxy_config(kubeconfig: Path) -> Json:
    """kube-proxy's: nftables, since iptables may be absent, and the host's limits for conntrack as they are."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": NODE_IP,
        "healthzBindAddress": f"{NODE_IP}:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"{NODE_IP}:10249",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE_NAME,
        "oomScoreAdj": 0,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def corefile(kubeconfig: Path) -> str:
    """CoreDNS's: the cluster's names, and no others.

    Two server blocks: within one, the order of plugins is CoreDNS's own, and `template` would answer first.
    """
    zones = f"{DOMAIN} in-addr.arpa ip6.arpa"
    return f"""\
{zones} {{
    bind {NODE_IP}
    errors
    ready {NODE_IP}:{DNS_READY_PORT}
    cache 5
    kubernetes {zones} {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
. {{
    bind {NODE_IP}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
