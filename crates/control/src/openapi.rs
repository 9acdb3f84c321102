//! The OpenAPI document (3.1), made of the table of endpoints and the types of their rows.

use axum::http::Method;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::routes::{Endpoint, endpoints};

/// The document.
pub(crate) fn document() -> Value {
    let mut generator =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = COMPONENTS.into()).into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints() {
        let described = operation(&endpoint, &mut generator);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_ascii_lowercase()] = described;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "keepwarm",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane of a keepwarm daemon. Durations are seconds, times seconds since 1970. \
                            An error has a body {\"error\": \"what is wrong and what would be accepted\"}.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "token": [] }],
    })
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut content = json!({});
    content[endpoint.answers] = match endpoint.response {
        Some(schema) => json!({ "schema": schema(generator) }),
        None => json!({ "schema": { "type": "string" } }),
    };
    let mut operation = json!({
        "summary": endpoint.summary,
        "operationId": operation_id(endpoint),
        "responses": {
            "200": { "description": "Done.", "content": content },
            "default": {
                "description": "Why not.",
                "content": { "application/json": { "schema": generator.subschema_for::<crate::rows::ErrorBody>() } },
            },
        },
    });
    if let Some(schema) = endpoint.request {
        let body = json!({ "required": true, "content": { "application/json": { "schema": schema(generator) } } });
        operation["requestBody"] = body;
    }
    let names = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// `get_pools`, `post_pools_name_pause`: unique, since paths are.
fn operation_id(endpoint: &Endpoint) -> String {
    let path = endpoint.path.trim_start_matches("/api/v1");
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = match endpoint.method {
        // A page for people may show what the API has under the same name.
        Method::GET if endpoint.answers.starts_with("text/html") => "page",
        Method::GET => "get",
        Method::PATCH => "patch",
        _ => "post",
    };
    [method].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

const COMPONENTS: &str = "/components/schemas";
