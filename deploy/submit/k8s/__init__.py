"""A run as Kubernetes objects: rendered, checked without a cluster, sent, watched, and taken away again."""
