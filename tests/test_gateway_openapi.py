"""The gateway's OpenAPI document, and requests of every kind that schemathesis makes of it.

FORETHOUGHT_FUZZ=N tries N requests for each route and kind of data instead of a few.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from forethought.gateway import page
from forethought.gateway.openapi import FIELDS, document
from forethought.gateway.request import PATHS, QUEUED
from forethought.gateway.scripted import ScriptedServer
from gateway_upstream import KEY, saved_predictor, served_in_thread, tenants_file

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")

SECRET, ADMIN = "sk-upstream-secret-0123456789", "admin-key-of-the-operator"
NUM = int(os.environ.get("FORETHOUGHT_FUZZ", "10"))
TENANTS = '[tenants.one]\nkey_sha256 = "KEY"\ntokens = 1_000_000_000\n'
# One of these a route: data as the document says, and other data where it has any.
CASES = [
    (path, method, kind)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    for kind in ("positive", *(["negative"] if "requestBody" in operation else []))
    if path != "/forethought/events"  # a stream without an end
]


def test_every_route_that_is_decided_on_and_every_page_is_in_the_document() -> None:
    assert set(FIELDS) == {*PATHS, *QUEUED}
    own = {path for path in document()["paths"] if not path.startswith("/v1/")}
    assert own == set(page.ROUTES)
    for path in own:
        assert {method.upper() for method in document()["paths"][path]} == set(page.ROUTES[path]) - {"HEAD"}


@pytest.fixture(scope="module", params=["native", "two-call"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway with a key of the server, quotas, a journal and an admin key."""
    folder = tmp_path_factory.mktemp("openapi")
    how: dict[str, Any] = {"upstream_key_env": "FUZZ_UPSTREAM", "admin_key_env": "FUZZ_ADMIN"}
    how |= {"log": str(folder / "journal"), "ledger": f"sqlite:{folder / 'ledger.db'}", "most_tokens": 4_096}
    how |= {"enforce": request.param, "server": {"native": "vllm", "two-call": "llama.cpp"}[request.param]}
    how |= {"tenants": tenants_file(folder / "tenants.toml", TENANTS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUZZ_UPSTREAM", SECRET)
        patch.setenv("FUZZ_ADMIN", ADMIN)
        patch.setattr(page, "WRONG_KEY_SECONDS", 0.0)
        with served_in_thread(ScriptedServer(key=SECRET), saved_predictor(folder / "text"), **how) as found:
            yield found.url.removesuffix("/v1")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "kind"), CASES)
def test_whatever_comes_is_answered_or_refused_and_shows_no_key(
    gateway: str, path: str, method: str, kind: str
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    # What it takes is for the server to say.
    excluded = [negative_data_rejection, positive_data_acceptance] if path.startswith("/v1/") else []
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=gateway)
    operation = schema[path][method.upper()]
    mode = schemathesis.GenerationMode(kind)

    @settings(max_examples=NUM, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict):  # a scripted server thinks a thousand times in no time at all
            case.body |= {
                name: min(case.body[name], 3) for name in ("n", "best_of") if type(case.body.get(name)) is int
            }
        key = KEY if path.startswith("/v1/") or path.endswith("feedback") else ADMIN
        reply = case.call(headers={"authorization": f"Bearer {key}"}, timeout=20, allow_redirects=False)
        case.validate_response(reply, excluded_checks=excluded)
        assert reply.status_code < 500
        seen = reply.content.decode("latin-1") + json.dumps({name: str(text) for name, text in reply.headers.items()})
        assert SECRET not in seen
        assert ADMIN not in seen
        assert KEY not in seen

    ask()
