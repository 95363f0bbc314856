"""Which addresses a webhook may be sent to."""

import pytest

from functions.notify.sender import is_allowed, real_address

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"]
PRIVATE = [
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "127.0.0.1",
    "100.64.0.1",
    "0.0.0.0",
    "::1",
    "fc00::1",
    "fe80::1",
    "::ffff:10.0.0.1",  # IPv4 in IPv6
    "2002:0a00:0001::",  # 6to4 of 10.0.0.1
    "64:ff9b::10.0.0.1",  # NAT64 of 10.0.0.1
    "fe80::1%eth0",
]
METADATA = [
    "169.254.169.254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(real_address(address), private=False)


@pytest.mark.parametrize("address", PRIVATE + METADATA)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(real_address(address), private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_allowed_where_the_operator_says_so(address: str) -> None:
    assert is_allowed(real_address(address), private=True)


@pytest.mark.parametrize("address", [*METADATA, "224.0.0.1", "ff02::1"])
def test_instance_metadata_and_multicast_are_never_allowed(address: str) -> None:
    assert not is_allowed(real_address(address), private=True)
