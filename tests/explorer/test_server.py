"""Who is answered and who is refused, with a sentence and the right status."""

import http.client
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cryohydra.errors import UserError
from cryohydra.explorer.server import ExplorerServer
from cryohydra.explorer.shelf import pack
from cryohydra.io.pickles import read_pickle

from .conftest import BOX_SIZE, NUM_USED, KnownRun

Answer = tuple[int, bytes, http.client.HTTPMessage]


def ask(server: ExplorerServer, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """One request as it stands, with no token of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    reply = connection.getresponse()
    content = reply.status, reply.read(), reply.headers
    connection.close()
    return content


def ask_as_page(server: ExplorerServer, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """One request with the token."""
    return ask(server, method, path, body, X_Token=server.guard.token, **headers)


def post(server: ExplorerServer, path: str, content: object) -> Answer:
    """JSON from the page."""
    return ask_as_page(server, "POST", path, json.dumps(content).encode(), Content_Type="application/json")


def is_a_sentence(content: bytes) -> bool:
    text = content.decode()
    return text.endswith(".\n") and text.count("\n") == 1 and "Traceback" not in text


def test_the_address_gives_a_cookie_that_opens_every_page(server: ExplorerServer) -> None:
    status, _, headers = ask(server, "GET", f"/?token={server.guard.token}")
    cookie = headers["Set-Cookie"]
    assert status == 200
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    status, page, headers = ask(server, "GET", "/", Cookie=cookie.split(";")[0])
    assert status == 200 and b"Hydra" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/page/main.js", "/api/run", "/api/origins/s0/columns/z_0"])
def test_without_the_token_nothing_is_told(server: ExplorerServer, path: str) -> None:
    for headers in ({}, {"X_Token": "wrong"}, {"Cookie": "drgnai=wrong"}, {"X_Token": "é"}):
        status, content, _ = ask(server, "GET", path, **headers)
        assert status == 401 and is_a_sentence(content)


def test_saving_needs_the_token(server: ExplorerServer, known_run: KnownRun) -> None:
    body = pack(np.ones(NUM_USED, dtype=bool))
    status, _, _ = ask(server, "POST", "/api/selections/x", body, Content_Type="application/octet-stream")
    assert status == 401
    assert not (known_run.folder.path / "explorer").exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_other_sites_may_not_ask_even_with_the_token(server: ExplorerServer, headers: dict[str, str]) -> None:
    status, content, _ = ask_as_page(server, "GET", "/api/run", **headers)
    assert status == 403 and is_a_sentence(content)


def test_a_port_forwarded_by_ssh_is_let_in(server: ExplorerServer) -> None:
    status, _, _ = ask_as_page(server, "GET", "/api/run", Host="localhost:9999", Origin="http://localhost:9999")
    assert status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/page/../explorer.py",
        "/page/..%2fexplorer.py",
        "/page/%2e%2e%2f%2e%2e%2ferrors.py",
        "/page/%2fetc%2fpasswd",
        "/page/nothing.js",
        "/api/origins/s9",
        "/api/origins/s0/columns/nothing",
    ],
)
def test_what_is_not_there_is_not_found(server: ExplorerServer, path: str) -> None:
    status, content, _ = ask_as_page(server, "GET", path)
    assert status == 404 and is_a_sentence(content)


def test_methods_that_an_address_does_not_take(server: ExplorerServer) -> None:
    assert ask_as_page(server, "POST", "/api/run", b"")[0] == 405
    assert ask_as_page(server, "PUT", "/api/run", b"")[0] == 501


VOLUME = {"class_index": 0, "conformation": [0.0, 0.0], "finest": 8}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        json.dumps({**VOLUME, "more": 1}).encode(),
        json.dumps({**VOLUME, "class_index": 2}).encode(),
        json.dumps({**VOLUME, "class_index": "0"}).encode(),
        json.dumps({**VOLUME, "conformation": [0.0]}).encode(),
        b'{"class_index": 0, "conformation": [NaN, 0.0], "finest": 8}',
        b'{"class_index": 0, "conformation": [1e999, 0.0], "finest": 8}',
        json.dumps({**VOLUME, "finest": 0}).encode(),
    ],
)
def test_bodies_that_make_no_sense(server: ExplorerServer, content: bytes) -> None:
    path = "/api/origins/s0/volume"
    status, sentence, _ = ask_as_page(server, "POST", path, content, Content_Type="application/json")
    assert status == 400 and is_a_sentence(sentence)


def test_bodies_of_the_wrong_kind_or_size(server: ExplorerServer) -> None:
    path = "/api/origins/s0/volume"
    form = "application/x-www-form-urlencoded"
    assert ask_as_page(server, "POST", path, json.dumps(VOLUME).encode(), Content_Type=form)[0] == 415
    assert ask_as_page(server, "POST", path, None, Content_Type="application/json", Content_Length="9999999")[0] == 413
    assert ask_as_page(server, "POST", path, None, Content_Type="application/json", Content_Length="-5")[0] == 400
    assert ask_as_page(server, "POST", path, None, Transfer_Encoding="chunked")[0] == 411


@pytest.mark.parametrize(
    "query", ["", "?particles=-1", "?particles=999999", "?particles=1,x", "?particles=1&smoothing=99"]
)
def test_images_that_are_not_there(server: ExplorerServer, query: str) -> None:
    status, content, _ = ask_as_page(server, "GET", f"/api/images{query}")
    assert status == 400 and is_a_sentence(content)


def save(server: ExplorerServer, name: str, body: bytes) -> Answer:
    return ask_as_page(server, "POST", f"/api/selections/{name}", body, Content_Type="application/octet-stream")


@pytest.mark.parametrize("name", ["..", "..%2fx", "%2ftmp%2fx", ".hidden", "a%00b", "a%2fb", "x" * 80, "%20"])
def test_names_that_lead_elsewhere(server: ExplorerServer, known_run: KnownRun, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, content, _ = save(server, name, pack(np.ones(NUM_USED, dtype=bool)))
    assert status == 422 and is_a_sentence(content)
    assert sorted(tmp_path.rglob("*")) == before


def test_selections_of_no_particle_or_of_others(server: ExplorerServer, known_run: KnownRun) -> None:
    assert save(server, "x", pack(np.zeros(NUM_USED, dtype=bool)))[0] == 422
    assert save(server, "x", b"\xff")[0] == 422
    assert not (known_run.folder.path / "explorer" / "selections" / "x").exists()


def test_a_link_out_of_the_run_folder_is_not_followed(
    server: ExplorerServer, known_run: KnownRun, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (known_run.folder.path / "explorer").symlink_to(outside)
    status, content, _ = save(server, "x", pack(np.ones(NUM_USED, dtype=bool)))
    assert status == 422 and is_a_sentence(content)
    assert list(outside.iterdir()) == []


def test_all_that_is_written_is_in_the_explorers_folder(
    server: ExplorerServer, known_run: KnownRun, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    assert save(server, "x", pack(np.ones(NUM_USED, dtype=bool)))[0] == 200
    asked = {"class_index": 1, "conformations": [[0.0, 0.0], [1.0, 0.0]], "name": "v", "level": 0.25}
    assert post(server, "/api/origins/s0/volumes", asked)[0] == 200
    written = set(tmp_path.rglob("*")) - before
    assert written and all(path.is_relative_to(known_run.folder.path / "explorer") for path in written)


def test_a_saved_selection_is_of_rows_of_the_particle_file(server: ExplorerServer, known_run: KnownRun) -> None:
    chosen = np.arange(NUM_USED) % 5 == 0
    assert save(server, "every%20fifth", pack(chosen))[0] == 200
    folder = known_run.folder.path / "explorer" / "selections" / "every fifth"
    index = known_run.latents.particle_index
    assert read_pickle(folder / "ind.pkl").tolist() == sorted(index[chosen])
    assert read_pickle(folder / "ind_inverse.pkl").tolist() == sorted(index[~chosen])
    _, content, _ = ask_as_page(server, "GET", "/api/selections/every%20fifth")
    assert content == pack(chosen)


def test_a_failed_export_says_why(server: ExplorerServer, known_run: KnownRun) -> None:
    save(server, "x", pack(np.ones(NUM_USED, dtype=bool)))
    known_run.folder.latents_path(5).unlink()
    status, content, _ = ask_as_page(server, "POST", "/api/selections/x/export")
    assert status == 200
    assert "failed" in json.loads(content.splitlines()[-1])["error"]
    assert ask_as_page(server, "POST", "/api/selections/nothing/export")[0] == 404


def test_columns_and_images_come_as_plain_numbers(server: ExplorerServer, known_run: KnownRun) -> None:
    _, content, _ = ask_as_page(server, "GET", "/api/origins/s0/columns/z_0")
    assert np.allclose(np.frombuffer(content, "<f4"), known_run.latents.conformation[:, 0])
    _, content, headers = ask_as_page(server, "GET", "/api/images?particles=3,5&smoothing=2")
    assert headers["X-Box-Size"] == str(BOX_SIZE) and len(content) == 2 * BOX_SIZE**2


def test_a_film_is_a_gif_where_there_is_no_ffmpeg(
    server: ExplorerServer, known_run: KnownRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    frames = np.zeros((3, 8, 10, 3), dtype=np.uint8)
    path = "/api/movies/turn?width=10&height=8&frames_per_second=6"
    status, _, _ = ask_as_page(server, "POST", path, frames.tobytes(), Content_Type="application/octet-stream")
    assert status == 200
    with Image.open(known_run.folder.path / "explorer" / "movies" / "turn.gif") as film:
        assert film.size == (10, 8)


@pytest.mark.parametrize(
    ("query", "size"),
    [("width=10&height=8&frames_per_second=6", 239), ("width=0&height=8&frames_per_second=6", 240), ("", 240)],
)
def test_films_that_make_no_sense(server: ExplorerServer, known_run: KnownRun, query: str, size: int) -> None:
    path = f"/api/movies/turn?{query}"
    status, content, _ = ask_as_page(server, "POST", path, bytes(size), Content_Type="application/octet-stream")
    assert status == 400 and is_a_sentence(content)
    assert not (known_run.folder.path / "explorer").exists()


def test_a_class_is_prepared_or_not_there(server: ExplorerServer) -> None:
    path = "/api/origins/s0/prepare"
    assert post(server, path, {"class_index": 1, "finest": 64})[0] == 200
    status, content, _ = post(server, path, {"class_index": 2, "finest": 64})
    assert status == 400 and is_a_sentence(content)


def test_a_port_that_is_taken_is_a_sentence(server: ExplorerServer) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        ExplorerServer([], server.server_address[1])


def test_only_this_machine_is_served(server: ExplorerServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
