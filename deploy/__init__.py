"""What runs Rapport: the laptop launcher, images, compose, Kubernetes, dashboards and the demo."""
