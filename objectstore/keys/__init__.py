"""Data keys and the keys that wrap them.

Every attempt of a backup has a data key of its own.  What is stored is that key
*wrapped* by a key-encryption key, which never enters the store.  ``context`` says what
the data key is for (the attempt); a wrapped key opens only with the same.
"""

from objectstore.keys.contract import KEY_BYTES, Keys
from objectstore.keys.local import LocalKeys

__all__ = ["KEY_BYTES", "Keys", "LocalKeys"]
