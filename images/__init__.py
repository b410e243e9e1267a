"""How the container images are built: `build` on one's own machine, `environment` inside the Dockerfiles."""
