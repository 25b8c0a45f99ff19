"""Who a request is from, and what a tenants' file may say."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forethought.core.problems import Problems
from forethought.errors import FileError, InvalidInputError
from forethought.gateway.tenants import DEFAULT, Tenant, Tenants, _Reader, new_key
from forethought.gateway.windows import ALL, DAY, MINUTE


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


FILE = f"""
[gateway]
tokens_per_day = 5_000_000
header = "X-Team"
tokens_per_byte = 0.5

[tenants.search]
key_sha256 = ["{hashed("one")}", "{hashed("two").upper()}"]
tokens_per_minute = 20_000
tokens = 7
weight = 2
ceiling = 512
models = ["m"]

[tenants."b.2"]
key_sha256 = "{hashed("three")}"
ceiling = "low"

[tenants.batch]
header = "the batch"
"""


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    (tmp_path / "tenants.toml").write_text(FILE)
    return Tenants.read(tmp_path / "tenants.toml")


def test_a_file_with_a_byte_order_mark_and_line_ends_of_windows_is_read(tenants: Tenants, tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert Tenants.read(tmp_path / "marked.toml").all == tenants.all


def test_a_file_is_read(tenants: Tenants) -> None:
    search = Tenant("search", 2.0, {MINUTE: 20_000, ALL: 7}, 512, ("m",))
    assert tenants.all == (search, Tenant("b.2", ceiling="low"), Tenant("batch"))
    assert tenants.quotas == {DAY: 5_000_000}
    assert (tenants.header, tenants.tokens_per_byte) == ("x-team", 0.5)
    assert search.may_ask("m")
    assert not search.may_ask("other")
    assert not search.may_ask(None)
    assert Tenant("batch").may_ask(None)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": "Bearer one"}, "search"),
        ({"authorization": "bearer  two "}, "search"),
        ({"x-api-key": "three"}, "b.2"),
        ({"x-team": "the batch"}, "batch"),
        ({"authorization": "Bearer upstreams-own", "x-team": "the batch"}, "batch"),
        ({"authorization": "Bearer one", "x-team": "the batch"}, "search"),
        ({"authorization": "Bearer upstreams-own", "x-api-key": "three"}, "b.2"),
        ({"authorization": "Basic one"}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": f"Bearer {hashed('one')}"}, None),
        ({"x-team": "search"}, None),
        ({"x-api-key": "\udcff"}, None),
        ({}, None),
    ],
)
def test_who_a_request_is_from(tenants: Tenants, headers: dict[str, str], name: str | None) -> None:
    found = tenants.of(headers)
    assert (found and found.name) == name


def test_without_a_file_there_is_one_tenant_and_no_key() -> None:
    tenants = Tenants()
    found = tenants.of({})
    assert found is not None
    assert (found.name, found.quotas, tenants.quotas) == (DEFAULT, {}, {})


def test_a_new_key_opens_and_its_line_does_not_show_it(tmp_path: Path) -> None:
    texts = [new_key("search"), new_key("a.b")]
    (tmp_path / "tenants.toml").write_text("".join(text for _, text in texts))
    tenants = Tenants.read(tmp_path / "tenants.toml")
    found = [tenants.of({"authorization": f"Bearer {key}"}) for key, _ in texts]
    assert [one and one.name for one in found] == ["search", "a.b"]
    assert texts[0][0] not in texts[0][1]
    assert len({key for key, _ in [*texts, new_key("search")]}) == 3
    with pytest.raises(InvalidInputError, match="must be of letters"):
        new_key('x"]')


PROBLEMS: dict[str, tuple[str, list[str]]] = {
    "all at once": (
        "[gateway]\ntokens_per_day = -1\nheader = 'a b'\nspeed = 3\n[tenants.a]\nkey_sha256 = 5\nweight = 0\n"
        "ceiling = -1\nmodels = 'm'\ntokens_per_minut = 4\n[tenants.b]\n",
        [
            "[gateway]: no key is called 'speed'",
            "[gateway]: header must be the name of a header, not 'a b'",
            "[gateway]: tokens_per_day must be a whole number from 1 to 10^15, not -1",
            "[tenants.a]: no key is called 'tokens_per_minut'. Did you mean 'tokens_per_minute'?",
            "[tenants.a]: key_sha256 must be the SHA-256 of a key, or a list",
            "[tenants.a]: weight must be a number from 0.001 to 1000, not 0",
            "[tenants.a]: ceiling must be a number of tokens or an option's name, not -1",
            "[tenants.a]: models must be a list of names, not 'm'",
            "[tenants.b]: must be known by key_sha256 or by header, one of the two; neither is given",
        ],
    ),
    "no float holds it": (
        f"[tenants.a]\nkey_sha256 = '{hashed('k')}'\nweight = 1{'0' * 400}\n",
        ["[tenants.a]: weight must be a number from 0.001 to 1000, not 1000"],
    ),
    "the same key twice": (
        f"[tenants.a]\nkey_sha256 = '{hashed('k')}'\n[tenants.b]\nkey_sha256 = '{hashed('k').upper()}'",
        ["[tenants.b]: key_sha256 is already that of [tenants.a]"],
    ),
    "the same header twice": (
        "[gateway]\nheader = 'x-team'\n[tenants.a]\nheader = 'v'\n[tenants.b]\nheader = 'v'",
        ["[tenants.b]: header 'v' is already that of [tenants.a]"],
    ),
    "no naming header": ("[tenants.a]\nheader = 'v'", ["[tenants.a]: has a header, and [gateway] does not say which"]),
    "the key itself": (
        "[tenants.a]\nkey_sha256 = 'ft-secretsecret'",
        ["[tenants.a]: key_sha256 must be the 64 hexadecimal digits of a SHA-256; that looks like the key itself"],
    ),
    "a boolean quota": ("[gateway]\ntokens = true\n[tenants.a]\nkey_sha256 = ''", ["tokens must be a whole number"]),
    "a weight of nan": (f"[tenants.a]\nweight = nan\nkey_sha256 = '{hashed('k')}'", ["[tenants.a]: weight must be"]),
    "no tenants": ("[gateway]\ntokens = 1", ["has no tenants; add a table [tenants.NAME]"]),
    "no tables": ("gateway = 1\ntenants = []", ["[gateway]: must be a table", "[tenants]: must be a table"]),
    "a tenant that is a number": ("[tenants]\na = 1", ["[tenants.a]: must be a table"]),
    "a strange name": (
        f"[tenants.'a b']\nkey_sha256 = '{hashed('k')}'",
        ["[tenants.a b]: its name must be of letters"],
    ),
    "no TOML": ("[tenants.a\nkey", ["is not TOML"]),
    "a name twice": ("[tenants.a]\n[tenants.a]\n", ["is not TOML"]),
}


@pytest.mark.parametrize(("text", "messages"), PROBLEMS.values(), ids=PROBLEMS)
def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path, text: str, messages: list[str]) -> None:
    (tmp_path / "tenants.toml").write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        Tenants.read(tmp_path / "tenants.toml")
    said = str(caught.value)
    assert str(tmp_path) in said
    for message in messages:
        assert message in said
    assert "secretsecret" not in said


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None], ids=["a folder", "no file"])
def test_a_file_that_cannot_be_read(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "tenants.toml")
    with pytest.raises(FileError, match=r"tenants\.toml: cannot be read"):
        Tenants.read(tmp_path / "tenants.toml")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="is not TOML"):
        Tenants.read(tmp_path / "tenants.toml")


TEXTS = st.text("ab-é\x00 .", max_size=6) | st.just(hashed("k"))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)


def tables(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    known = ["tokens", "tokens_per_day", "key_sha256", "header", "weight", "ceiling", "models", "tokens_per_byte"]
    return st.dictionaries(st.sampled_from(known) | TEXTS, values, max_size=5)


VALUES = LEAVES | st.lists(LEAVES, max_size=3)
TABLE = tables(VALUES)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional={"gateway": TABLE | VALUES, "tenants": tables(TABLE) | VALUES}))
def test_whatever_a_file_holds_it_is_read_or_refused_in_words(tables: dict[str, Any]) -> None:
    problems = Problems("tenants.toml")
    found = _Reader(problems).read(tables)
    try:
        problems.raise_any()
    except InvalidInputError:
        return
    assert Tenants(**found).of({}) is None


def test_the_command_line_makes_a_key_whose_lines_are_the_file(call: Any, tmp_path: Path) -> None:
    said = call("serve", "--new-key", "search")
    assert said.code == 0
    key = said.err.split()[-1]
    assert key not in said.out
    (tmp_path / "tenants.toml").write_text(said.out)
    found = Tenants.read(tmp_path / "tenants.toml").of({"authorization": f"Bearer {key}"})
    assert found is not None
    assert found.name == "search"
    assert call("serve", "--new-key", "not a name").code == 1
