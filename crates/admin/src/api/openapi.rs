//! The OpenAPI 3.1 document: addresses from the table of operations, shapes from `schemas.json`.
//!
//! The table is our own and not utoipa's: handlers speak in values that are drawn by language and role (sentences, what a server said), so
//! derived schemas would describe other types than what is sent; and utoipa is a dozen crates and some seconds of build for it. That
//! answers have these shapes is tested against every operation instead.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{OPERATIONS, answer::json_of};
use crate::app::Answered;

/// Shapes by name.
const SCHEMAS: &str = include_str!("schemas.json");

pub(super) async fn show() -> Answered {
    Ok(json_of(StatusCode::OK, &document()))
}

/// The document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let mut parameters = Vec::new();
        for part in operation.path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let name = part.trim_end_matches('}');
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
        }
        for name in operation.query {
            parameters.push(json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
        }
        let kind = match operation.answer {
            "Octets" => "application/octet-stream",
            "Events" => "text/event-stream",
            "Metrics" => "text/plain",
            _ => "application/json",
        };
        let (status, answer) = match operation.answer {
            "" => ("204", json!({ "description": "Done" })),
            name => {
                let created = matches!((operation.method, name), ("post", "Account" | "Link" | "Token"));
                let content = json!({ kind: { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
                (if created { "201" } else { "200" }, json!({ "description": "Done", "content": content }))
            }
        };
        let problem = json!({
            "description": "Refused",
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        let mut described = json!({
            "summary": operation.summary,
            "operationId": format!("{}{}", operation.method, operation.path.replace(['/', '{', '}', '.'], "_")),
            "x-role": operation.role.word(),
            "parameters": parameters,
            "responses": { status: answer, "default": problem },
        });
        if !operation.body.is_empty() {
            let schema = json!({ "$ref": format!("#/components/schemas/{}", operation.body) });
            described["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": { "title": "connectord", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "MIT OR Apache-2.0" } },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}
