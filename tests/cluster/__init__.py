"""A real Kubernetes control plane for tests, without root, Docker or a network of its own."""
