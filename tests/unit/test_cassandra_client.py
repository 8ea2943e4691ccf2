"""What the driver's errors come to: not ready, or shut, which is another matter."""

import pytest
from cassandra import AuthenticationFailed, OperationTimedOut

from datastores.cassandra.client import Shut, told
from datastores.cassandra.driver import NoHostAvailable
from datastores.contract import NotReady

WRONG = AuthenticationFailed('Failed to authenticate to h: code=0100 [Bad credentials] message="… are incorrect"')
UNREAD = AuthenticationFailed('… message="Unable to perform authentication: Operation timed out - received only 0 …"')


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ({"h": WRONG}, Shut),
        ({"h": UNREAD}, NotReady),
        ({"h": ConnectionRefusedError(111, "refused")}, NotReady),
        ({"h": OperationTimedOut()}, NotReady),
        ({}, NotReady),
        (["h"], NotReady),
    ],
)
def test_a_login_that_does_not_come_about(errors: object, kind: type[NotReady]) -> None:
    with pytest.raises(NotReady) as caught, told():
        raise NoHostAvailable("unable to connect", errors)
    assert type(caught.value) is kind
