//! The API's description is valid and complete, and the pages need no network.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::Fake;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

#[tokio::test]
async fn every_route_is_described() {
    let fake = Fake::start();
    let api = fake.get("/openapi.json").await.body;
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1."), "{}", api["openapi"]);
    assert_eq!(fake.get("/v1/openapi.json").await.body, api);

    let mut operations: Vec<String> = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            operations.push(format!("{method} {path}"));
            assert!(operation["operationId"].is_string(), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(operation["responses"]["default"]["content"]["application/problem+json"].is_object());
        }
    }
    operations.sort();
    assert_eq!(
        operations,
        [
            "delete /experiments/{experiment}",
            "delete /interfaces/{interface}",
            "delete /personalities/{personality}",
            "delete /personas/{persona}",
            "delete /personas/{persona}/candidate",
            "delete /personas/{persona}/quarantine/{address}",
            "delete /personas/{persona}/sets/{set}/entries",
            "get /alerts",
            "get /counters",
            "get /events",
            "get /experiments",
            "get /experiments/{experiment}",
            "get /flows",
            "get /gc",
            "get /healthz",
            "get /interfaces",
            "get /interfaces/{interface}",
            "get /interfaces/{interface}/journal",
            "get /names",
            "get /node",
            "get /nodes",
            "get /operations",
            "get /operations/{operation}",
            "get /operations/{operation}/connections",
            "get /operations/{operation}/events",
            "get /personalities",
            "get /personalities/{personality}",
            "get /personas",
            "get /personas/{persona}",
            "get /personas/{persona}/candidate",
            "get /personas/{persona}/counters",
            "get /personas/{persona}/flows",
            "get /personas/{persona}/quarantine",
            "get /personas/{persona}/sets",
            "get /plan",
            "get /pools",
            "get /readyz",
            "get /status",
            "get /templates",
            "get /threat-level",
            "get /top",
            "patch /experiments/{experiment}",
            "patch /personas/{persona}",
            "post /apply",
            "post /confirm",
            "post /experiments",
            "post /experiments/{experiment}/end",
            "post /gc",
            "post /interfaces",
            "post /interfaces/{interface}/cancel",
            "post /interfaces/{interface}/confirm",
            "post /interfaces/{interface}/revert",
            "post /interfaces/{interface}/switch",
            "post /personalities",
            "post /personas",
            "post /personas/{persona}/candidate/accept",
            "post /personas/{persona}/quarantine",
            "post /personas/{persona}/sets/{set}/entries",
            "post /reload",
            "post /revert",
            "post /switches",
            "post /threat-level/alerts",
            "post /trace",
            "post /why",
            "put /interfaces/{interface}",
            "put /personas/{persona}",
            "put /personas/{persona}/candidate",
            "put /threat-level",
        ]
    );
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_path_parameter_is_described() {
    let api = Fake::start().get("/openapi.json").await.body;
    let mut references = BTreeSet::new();
    collect(&api, &mut references);
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(api.pointer(pointer).is_some(), "{reference}");
    }
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let described = parameters.iter().filter(|p| p["in"] == "path").count();
            assert_eq!(described, path.matches('{').count(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn operation_ids_are_unique() {
    let api = Fake::start().get("/openapi.json").await.body;
    let ids: Vec<_> = api["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| METHODS.iter().filter_map(|method| item.get(method)))
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[tokio::test]
async fn the_pages_need_no_network() {
    let router = Fake::start().router;
    for (path, wanted) in [
        ("/docs/", "swagger-ui-bundle.js"),
        ("/docs/swagger-initializer.js", "/openapi.json"),
        ("/docs/swagger-ui-bundle.js", "swagger"),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        assert!(text.contains(wanted), "{path}");
        assert!(path != "/docs/" || !text.contains("https://"), "{path} loads from elsewhere");
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("$ref", Value::String(reference)) => drop(references.insert(reference.clone())),
                    (_, value) => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
