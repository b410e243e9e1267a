"""The operator's own namespace, where its Deployment and the platform's Secret are."""

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.running import install_crd

NAME = "everwarm-platform"
DEPLOYMENT = "everwarm-operator"


@pytest.fixture
def home(control_plane: ControlPlane, namespace: str) -> str:
    """The operator's own namespace, with a Deployment of it."""
    install_crd(control_plane)
    labels = {"app": "operator"}
    control_plane.request(
        "POST",
        f"/apis/apps/v1/namespaces/{namespace}/deployments",
        {
            "metadata": {"name": DEPLOYMENT},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "operator", "image": "x"}]},
                },
            },
        },
    )
    return namespace


def settings_of(home: str, **changes: str) -> dict[str, str]:
    """The variables that a chart sets for the Secret."""
    return {
        "EVERWARM_OPERATOR_NAMESPACE": home,
        "EVERWARM_OPERATOR_NAME": DEPLOYMENT,
        "EVERWARM_OPERATOR_PLATFORM_SECRET": NAME,
        "EVERWARM_OPERATOR_RESYNC_SECONDS": "0.5",
        **changes,
    }
