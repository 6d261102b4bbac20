//! Every refusal is a problem document, with everything that is wrong.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, header};
use hub_daemon::inputs::rest::BODY_BYTES;
use hub_daemon::view::Snapshot;
use serde_json::{Value, json};

use crate::support::{FILED, FULL, Fake, INVALID, document, request};

#[tokio::test]
async fn what_the_hub_refuses_has_its_status() {
    let fake = Fake::start();
    fake.create("dev").await;
    let post = async |name: &str| fake.send(Method::POST, "/personas", &document(name)).await;

    let invalid = post(INVALID).await;
    invalid.assert_problem(422);
    assert_eq!(invalid.pointers(), ["/name", ""]);
    assert_eq!(invalid.body["type"], "urn:hub:problem:invalid");
    post("dev").await.assert_problem(409);
    post(FULL).await.assert_problem(507);

    let filed = format!("/personas/{FILED}");
    fake.send(Method::PUT, &filed, &document(FILED)).await.assert_problem(409);
    fake.send(Method::PATCH, &filed, &json!({})).await.assert_problem(409);
    fake.send(Method::DELETE, &filed, &Value::Null).await.assert_problem(409);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        fake.send(method, "/personas/none", &document("none")).await.assert_problem(404);
    }
    for path in ["/personas/none", "/personas/none/flows", "/personas/none/counters"] {
        fake.get(path).await.assert_problem(404);
    }
}

#[tokio::test]
async fn a_stale_tag_changes_nothing() {
    let fake = Fake::start();
    fake.create("dev").await;
    let tagged = |method: Method, tag: &str| {
        let mut tagged = request(method, "/personas/dev", &document("dev"));
        tagged.headers_mut().insert(header::IF_MATCH, tag.parse().unwrap());
        tagged
    };
    let first = fake.get("/personas/dev").await.header("etag").to_owned();
    // Of another definition, of another persona, weak, none of ours.
    let (later, other) = (first.replacen(".1.", ".7.", 1), first.replacen("\"0", "\"1", 1));
    assert!(later != first && other != first, "{first}");
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for tag in [&later, &other, &format!("W/{first}"), "\"1\"", "nonsense"] {
            fake.ask(tagged(method.clone(), tag)).await.assert_problem(412);
        }
    }
    assert_eq!(fake.get("/personas/dev").await.header("etag"), first);
    let second = fake.ask(tagged(Method::PUT, &first)).await.header("etag").to_owned();
    assert!(second.contains(".2."), "{second}");
    let third =
        fake.ask(tagged(Method::PATCH, &format!("{first}, {second}"))).await.header("etag").to_owned();
    assert!(third.contains(".3."), "{third}");
    assert_eq!(fake.ask(tagged(Method::DELETE, "*")).await.status, 204);

    let mut post = request(Method::POST, "/personas", &document("dev"));
    post.headers_mut().insert(header::IF_MATCH, "*".parse().unwrap());
    fake.ask(post).await.assert_problem(412);
}

#[tokio::test]
async fn every_error_of_a_document_is_listed() {
    let fake = Fake::start();
    for (method, path) in [(Method::POST, "/personas"), (Method::PUT, "/personas/filed")] {
        let got = fake.send(method, path, &json!({
            "name": "x", "ip_range": "10.0.0.1/24", "colour": "red",
            "qos": {"bandwidth": "fast"},
            "security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}, {"port": "x", "action": "burn"}]
        })).await;
        got.assert_problem(422);
        let mut pointers = got.pointers();
        pointers.sort();
        for pointer in ["/colour", "/ip_range", "/qos/bandwidth", "/security_policies/1/action"] {
            assert!(pointers.iter().any(|found| found == pointer), "{pointer} in {pointers:?}");
        }
    }
    fake.create("dev").await;
    let patched = fake.send(Method::PATCH, "/personas/dev", &json!({"colour": "red"})).await;
    patched.assert_problem(422);
    assert_eq!(patched.pointers(), ["/colour"]);
    fake.send(Method::PATCH, "/personas/dev", &json!([1])).await.assert_problem(422);
}

#[tokio::test]
async fn bodies_that_are_no_documents_are_refused() {
    let fake = Fake::start();
    let post = |content_type: &str, body: Vec<u8>| {
        let post = Request::post("/personas").header(header::CONTENT_TYPE, content_type);
        post.body(Body::from(body)).unwrap()
    };
    fake.ask(post("application/json", b"{\"name\": ".to_vec())).await.assert_problem(400);
    fake.ask(post("application/json", vec![0xff, 0xfe])).await.assert_problem(400);
    fake.ask(post("application/json", Vec::new())).await.assert_problem(400);
    fake.ask(post("text/yaml", b"name: dev".to_vec())).await.assert_problem(415);
    fake.ask(Request::post("/personas").body(Body::from("{}")).unwrap()).await.assert_problem(415);
    fake.ask(post("application/json", vec![b' '; BODY_BYTES + 1])).await.assert_problem(413);
    let deep = "[".repeat(100_000);
    fake.ask(post("application/json", deep.into_bytes())).await.assert_problem(400);
    let charset = post("application/json; charset=utf-8", document("dev").to_string().into_bytes());
    assert_eq!(fake.ask(charset).await.status, 201);
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let fake = Fake::start();
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1_024]));
    let body = Body::from_stream(futures::stream::iter(chunks));
    let post = Request::post("/personas").header(header::CONTENT_TYPE, "application/json");
    fake.ask(post.body(body).unwrap()).await.assert_problem(413);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_given_up() {
    let fake = Fake::start();
    let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let post = Request::post("/personas").header(header::CONTENT_TYPE, "application/json");
    fake.ask(post.body(body).unwrap()).await.assert_problem(408);
}

#[tokio::test]
async fn unknown_routes_methods_and_parameters_are_refused() {
    let fake = Fake::start();
    for path in ["/nothing", "/v1/nothing", "/personas/", "/v2/personas"] {
        fake.get(path).await.assert_problem(404);
    }
    fake.get("/personas/%ff").await.assert_problem(400);
    for (method, path, allowed) in [
        (Method::DELETE, "/personas", "POST"),
        (Method::POST, "/v1/personas/x", "PATCH"),
        (Method::POST, "/status", "GET"),
        (Method::GET, "/why", "POST"),
    ] {
        let got = fake.send(method, path, &Value::Null).await;
        got.assert_problem(405);
        assert!(got.header("allow").contains(allowed), "{path}: {}", got.header("allow"));
    }
    let wrong = fake.get("/personas?state=asleep&limit=0&colour=red&label=x&name=a&name=b").await;
    wrong.assert_problem(400);
    assert_eq!(wrong.body["errors"].as_array().unwrap().len(), 5, "{}", wrong.body);
    fake.get("/flows?limit=many").await.assert_problem(400);
    fake.get("/events?type=smell").await.assert_problem(400);
}

#[tokio::test]
async fn wrong_keys_and_questions_are_refused() {
    let fake = Fake::start();
    let mut post = request(Method::POST, "/personas", &document("dev"));
    post.headers_mut().insert("idempotency-key", "k".repeat(256).parse().unwrap());
    fake.ask(post).await.assert_problem(400);

    let ask = async |question: Value| fake.send(Method::POST, "/why", &question).await;
    let good = json!({"protocol": "tcp", "source": "10.0.0.1", "target": "10.0.0.2"});
    assert_eq!(ask(good.clone()).await.status, 200);
    let mut nonsense = good.clone();
    nonsense["protocol"] = json!("nonsense");
    ask(nonsense).await.assert_problem(422);
    let wrong = ask(json!({"protocol": "tcp", "source": "here", "target": "there", "x": 1})).await;
    wrong.assert_problem(422);
    assert_eq!(wrong.pointers().len(), 3, "{}", wrong.body);
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_said_to_be() {
    let fake = Fake::start();
    fake.snapshot.send_replace(Arc::new(Snapshot::default()));
    fake.get("/readyz").await.assert_problem(503);

    let mut fake = Fake::start();
    let (commands, requests) = tokio::sync::mpsc::channel(1);
    drop(requests);
    fake.hub.commands = commands;
    fake.router = hub_daemon::inputs::rest::router(fake.hub.clone());
    fake.get("/healthz").await.assert_problem(503);
    fake.send(Method::POST, "/personas", &document("dev")).await.assert_problem(503);
}
