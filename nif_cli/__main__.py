from nif_cli.cli import main

main()
