"""Starting the ranks of one node, and of several: ``python -m deploy.launch.agent``."""
