"""JSON Schema as TypeScript types, and the client that is made of them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from callboard.cli import main
from callboard.client.typescript import typescript_client
from callboard.client.typescript.types import comment, property_name, type_name, type_of


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, "number"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}, "number | null"),
        ({"enum": ["a", 'b"', 3]}, '"a" | "b\\"" | 3'),
        ({"const": True}, "true"),
        ({"$ref": "#/components/schemas/Order-Input"}, "Models.Order_Input"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '("a" | "b")[]'),
        ({"type": "array", "prefixItems": [{"type": "string"}, {}]}, "[string, unknown]"),
        ({"type": "object"}, "{ [name: string]: unknown }"),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            "{ [name: string]: string }",
        ),
        ({}, "unknown"),
        (True, "unknown"),
        (False, "never"),
    ],
)
def test_each_schema_has_its_type(schema, expected):
    assert type_of(schema) == expected


def test_a_property_that_is_not_required_may_be_left_out():
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "is-gift": {"type": "boolean"}},
        "required": ["id"],
    }
    assert type_of(schema) == '{\n  id: string;\n  "is-gift"?: boolean;\n}'


def test_names_are_made_safe():
    assert type_name("List[int]") == "List_int_"
    assert type_name("3d") == "_3d"
    assert property_name("a b") == '"a b"'


def test_a_comment_does_not_end_early():
    assert list(comment("never */ alert(1)", "")) == ["/** never * / alert(1) */"]


DOCUMENT = {
    "paths": {
        "/api/actions/hello": {
            "post": {
                "description": "Say hello.",
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Hello"}}
                    }
                },
                "responses": {
                    "200": {
                        "content": {
                            "application/json": {
                                "schema": {"anyOf": [{"properties": {"data": {}}}, {}]}
                            }
                        }
                    }
                },
            }
        },
        "/healthz": {"get": {}},
    },
    "components": {
        "schemas": {
            "Hello": {"type": "object", "properties": {"to": {"$ref": "#/x/Name"}}},
            "Name": {"type": "string"},
            "Failure": {"type": "object"},
            "Run": {"type": "object"},
            "Unused": {"type": "object"},
        }
    },
}


def test_the_client_holds_the_actions_and_the_models_they_lead_to():
    text = typescript_client(DOCUMENT)
    assert (
        "  /** Say hello. */\n  hello: { params: Models.Hello; data: unknown; code: string };"
        in text
    )
    assert "export type Name = string;" in text
    assert "Unused" not in text
    assert "healthz" not in text


def test_the_command_reads_a_saved_document(tmp_path):
    saved = tmp_path / "openapi.json"
    saved.write_text(json.dumps(DOCUMENT))
    done = CliRunner().invoke(main, ["client", "--lang", "ts", "--openapi", str(saved)])
    assert done.output == typescript_client(DOCUMENT)


def test_the_command_tells_what_is_no_document(tmp_path):
    saved = tmp_path / "openapi.json"
    saved.write_text("{}")
    done = CliRunner().invoke(main, ["client", "--lang", "ts", "--openapi", str(saved)])
    assert done.exit_code == 1
    assert "holds no OpenAPI document" in done.output


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    saved = tmp_path / "openapi.json"
    saved.write_text(json.dumps(DOCUMENT))
    out = tmp_path / "missing" / "client.ts"
    command = ["client", "--lang", "ts", "--openapi", str(saved), "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert done.output == f"callboard: {out} cannot be written: No such file or directory\n"
