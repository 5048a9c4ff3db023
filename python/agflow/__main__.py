"""``python -m agflow`` is the ``agflow`` command."""

from agflow._launcher import main

main()
