"""`python -m config.embedded start|stop|status`: the embedded services by hand."""

import sys

from config import embedded


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    match arguments:
        case ["start"]:
            embedded.ensure_running()
            sys.stdout.write("The embedded PostgreSQL and Valkey run.\n")
        case ["stop"]:
            answer = "Stopped the embedded services." if embedded.stop() else "No embedded service runs here."
            sys.stdout.write(f"{answer}\n")
        case ["status"]:
            found = embedded.endpoints()
            sys.stdout.write(f"{found.database_url}\n{found.valkey_url}\n" if found else "Not running.\n")
        case _:
            sys.stderr.write("usage: python -m config.embedded start|stop|status\n")
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except embedded.StartError as error:
        sys.exit(str(error))
