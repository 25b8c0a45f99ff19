"""Pages read the gateway's own errors where the server lets them read its replies, and nowhere else."""

from __future__ import annotations

import pytest

from forethought.gateway.cors import MOST_SITES, Cors

PAGE, OTHER = "https://page.example", "https://other.example"


def said(status: int = 200, /, **headers: str) -> tuple[int, list[tuple[bytes, bytes]]]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, [(f"access-control-{name}".encode(), value.encode()) for name, value in names.items()]


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([], {}),
        ([said(allow_origin=PAGE)], {"access-control-allow-origin": PAGE, "vary": "Origin"}),
        ([said(allow_origin="*", allow_credentials="true")], {"access-control-allow-origin": "*"}),
        ([said(allow_origin=OTHER)], {}),
        ([said(allow_origin="null")], {}),
        ([said(allow_credentials="true")], {}),
        ([said(allow_origin=PAGE), said()], {}),  # it has changed its mind
        ([said(allow_origin="*"), said(500)], {"access-control-allow-origin": "*"}),  # errors often lack it
        ([said(allow_origin="*"), said(500, allow_origin=OTHER)], {}),
        ([said(allow_origin="*", allow_methods="POST", max_age="9")], {"access-control-allow-origin": "*"}),
    ],
)
def test_errors_allow_what_the_server_allowed(replies, expected):
    cors = Cors()
    for status, headers in replies:
        cors.see(PAGE, status, headers)
    assert cors.headers(PAGE) == expected
    assert cors.headers(OTHER) == cors.headers(None) == {}


def test_no_number_of_sites_takes_more_room():
    cors = Cors()
    for number in range(10 * MOST_SITES):
        cors.see(f"https://{number}.example", *said(allow_origin="*"))
    assert len(cors._allowed) == MOST_SITES
