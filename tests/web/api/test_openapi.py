"""The document of the API is the API: every route, parameter, body, answer and error. SECURITY 30."""

import copy
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from sqlalchemy.orm import Session

from portal.domain.json_values import plain
from portal.services.accounts import api_keys
from portal.services.reports.lists import CatalogueLine, ListReport, RunReport
from portal.web.api import openapi
from tests.conftest import CATALOGUE
from tests.factories import make_preference, make_user

UNFIT = [negative_data_rejection]
# No schema tells a line that is an address from one that is not, nor that a list takes passwords.
CHOOSY = [*UNFIT, positive_data_acceptance]


def test_the_document_tells_of_every_route_and_of_no_other(app: Flask) -> None:
    told = {
        (f"/api/v1{path}", method.upper())
        for path, operations in openapi.document()["paths"].items()
        for method in operations
    }
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert told == routes


def test_the_document_is_the_same_for_everybody(client: FlaskClient, session: Session) -> None:
    response = client.get("/api/v1/openapi.json")
    assert response.json == openapi.document()
    for word in ("members", "tech", "files", "localhost"):
        assert f'"{word}"' not in response.text


def test_every_parameter_and_answer_is_explained() -> None:
    for path, operations in openapi.document()["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert {"200", "500"} <= set(operation["responses"]), where
            for each in (*operation.get("parameters", ()), *operation["responses"].values()):
                assert each["description"], (where, each)


@pytest.mark.parametrize("kind", [CatalogueLine, ListReport, RunReport])
def test_the_schema_of_an_answer_names_its_fields(kind: Any) -> None:
    found = openapi.schema(kind)
    assert found["required"] == list(kind._fields)
    assert plain(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"


@pytest.fixture
def api_schema(make_app: Any, instance: Any, rosters: Any, session: Session) -> Any:
    """The document of a portal with a key, lists and members; a list in it is one that there is, or nearly."""
    (instance / "mailinglists.toml").write_text(CATALOGUE.replace("syncpws = false", "syncpws = true", 1))
    make_user(session, "bob", is_superuser=True)
    for number in range(5):
        make_user(session, f"user{number}")
        make_preference(session, "members", f"user{number}@example.org", number % 2 == 0, seen=True)
    key = api_keys.create(session, "bob", label="x", expires_days=None, now=datetime(2026, 11, 22, tzinfo=UTC))
    document = copy.deepcopy(openapi.document())
    document["security"] = [{"bearer": []}]  # else a key in the other header is tried, and the right one with it
    for operations in document["paths"].values():
        for operation in operations.values():
            for each in operation.get("parameters", ()):
                if each["name"] == "handle":
                    each["schema"] = {"type": "string", "enum": ["members", "tech", "nope"]}
    app = make_app()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    found = schemathesis.openapi.from_dict(document)
    found.app = app
    found.config.update(base_url="http://localhost/api/v1")
    found.config.update(headers={"Authorization": f"Bearer {key}"})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), list(openapi.calls()), ids=lambda each: each)
def test_no_call_breaks_its_document(api_schema: Any, path: str, method: str, mode: GenerationMode) -> None:
    """Schemathesis sends what the document allows, and what it does not; no answer may be one that it does not tell of."""

    @given(case=api_schema[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def check(case: Any) -> None:
        case.call_and_validate(excluded_checks=CHOOSY if path.endswith(("/init", "/passwords", "/members")) else UNFIT)

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert path in {"/lists", "/openapi.json"}  # nothing is asked there that could be wrong
