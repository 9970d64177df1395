"""One module per subcommand of ``pfc``; each offers ``add_parser(subparsers)``."""
