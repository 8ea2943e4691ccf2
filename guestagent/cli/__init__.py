"""The ``ostler`` command.

Verbs come from the declarations, so a part that is declared is a command at once;
what runs in the command itself (backups of a realm, images, waiting) stands beside
them.  Standard output carries the result and nothing else; progress and errors go to
standard error; the exit status is that of ``guestagent.errors``.

* ``app``         global options, finding the command, errors
* ``verbs``       commands made from the declarations
* ``requests``    arguments from the command line, a file or a prompt
* ``show``        results as tables or JSON
* ``progress``    bars on a terminal, lines elsewhere
* ``backups``     the commands that need a realm and no agent
* ``operations``  waiting, and reading the journal of an agent that is not there
* ``images``      facts for the image builder
"""

from guestagent.cli.app import run

__all__ = ["run"]
