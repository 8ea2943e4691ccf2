"""The door of a private server: a key made for it alone, which both sides must show.

A server that asks for no password is open to whoever is first at its port, and every account of a machine sees which
ports are listened at.  So nothing is taken from anybody, neither statements nor what neighbours send, but over TLS and
with the one certificate there is; nor do we speak to anybody else who might listen in its place.  The key lies in the
server's own folder, is never used twice and goes with it.
"""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

KEY = "door.pem"
SIDES = ("client_encryption_options", "server_encryption_options")
_LIFE = timedelta(days=2)
"""Before and after now: it is not by its age that the certificate is known."""


def made() -> bytes:
    """Return a new private key and the certificate that it has signed itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private server")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - _LIFE, now + _LIFE
    )
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + signed.public_bytes(Encoding.PEM)


def settings(folder: Path) -> dict[str, str]:
    """Return what has the server ask everybody for the key that lies in ``folder``."""
    told = {
        "optional": "false",
        "require_client_auth": "true",
        "ssl_context_factory.class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory",
        "keystore": str(folder / KEY),
        "truststore": str(folder / KEY),
    }
    tenants, neighbours = ({f"{side}.{name}": value for name, value in told.items()} for side in SIDES)
    return {
        **tenants,
        f"{SIDES[0]}.enabled": "true",
        **neighbours,
        f"{SIDES[1]}.internode_encryption": "all",
    }


def opened(folder: Path) -> ssl.SSLContext:
    """Return what shows the key that lies in ``folder``, and takes nothing else for an answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It is the certificate itself that is known, whatever name it has.
    context.check_hostname = False
    context.load_verify_locations(folder / KEY)
    context.load_cert_chain(folder / KEY)
    return context
