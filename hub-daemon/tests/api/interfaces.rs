//! Personalities and interface records over REST.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::support::request;
use crate::switching::{Switching, personality, record};

#[tokio::test]
async fn versions_are_by_content_and_read_back() {
    let hub = Switching::start().await;
    let again = hub.post("/v1/personalities", &personality("web", &json!({}))).await;
    assert_eq!((&again["version"], &again["used_by"]), (&json!("web@1"), &json!(["web-1"])));
    hub.post("/v1/personalities", &personality("new", &json!({}))).await;
    let other = personality("new", &json!({"dns_servers": ["10.20.0.53"], "kind": "personality"}));
    let made = hub.fake.send(Method::POST, "/v1/personalities", &other).await;
    assert_eq!((made.status, &made.body["version"]), (StatusCode::CREATED, &json!("new@2")));
    assert_eq!(made.header("location"), "/v1/personalities/new@2");

    let last = hub.fake.get("/v1/personalities/new").await;
    assert_eq!(last.body["version"], "new@2");
    assert_eq!(last.header("etag"), made.header("etag"));
    assert_eq!(last.body["definition"]["dns_servers"], json!(["10.20.0.53"]));
    assert_eq!(last.body["used_by"], json!([]));
    let first = hub.fake.get("/v1/personalities/web@1").await.body;
    assert_eq!(first["used_by"], json!(["web-1"]));
    assert_eq!(first["digest"].as_str().unwrap().len(), 64);
    assert!(first["compiled_rules"][0].as_u64().unwrap() > 0, "{first}");

    let known = Request::get("/personalities/new").header("if-none-match", last.header("etag"));
    assert_eq!(hub.fake.ask(known.body(Body::empty()).unwrap()).await.status, StatusCode::NOT_MODIFIED);

    let mut seen = Vec::new();
    let mut path = "/v1/personalities?limit=2".to_owned();
    loop {
        let page = hub.fake.get(&path).await.body;
        seen.extend(page["personalities"].as_array().unwrap().iter().map(|view| view["version"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/personalities?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["broken@1", "lockdown@1", "lockdown2@1", "new@1", "new@2", "web@1", "web2@1"]);
    let named = hub.fake.get("/v1/personalities?name=new").await.body;
    assert_eq!(named["personalities"].as_array().unwrap().len(), 2);

    hub.fake.send(Method::DELETE, "/v1/personalities/web@1", &Value::Null).await.assert_problem(409);
    assert_eq!(hub.fake.send(Method::DELETE, "/v1/personalities/new@2", &Value::Null).await.status, 204);
    hub.fake.get("/v1/personalities/new@2").await.assert_problem(404);
    hub.fake.send(Method::DELETE, "/v1/personalities/new@2", &Value::Null).await.assert_problem(404);
}

#[tokio::test]
async fn yaml_is_the_same_document_and_its_errors_are_shown_in_place() {
    let hub = Switching::start().await;
    let post = async |text: &str| {
        let post = Request::post("/v1/personalities").header(header::CONTENT_TYPE, "application/yaml");
        hub.fake.ask(post.body(Body::from(text.to_owned())).unwrap()).await
    };
    let document = serde_saphyr::to_string(&personality("web", &json!({}))).unwrap();
    assert_eq!(post(&document).await.body["version"], "web@1");
    let wrong = post("kind: personality\nname: x\nip_addresses: [10.20.0.300/24]\ncolour: red\n").await;
    wrong.assert_problem(422);
    let mut pointers = wrong.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/colour", "/ip_addresses/0"], "{}", wrong.body);
    let place = &wrong.body["errors"][0]["place"];
    assert_eq!((&place["line"], &place["column"]), (&json!(4), &json!(1)), "{place}");
    assert!(place["snippet"].as_str().unwrap().contains("colour: red"), "{place}");
    post("name: a\n---\nname: b\n").await.assert_problem(422);
    post("name: [a\n").await.assert_problem(422);
}

#[tokio::test]
async fn secrets_are_refused_and_never_echoed() {
    let hub = Switching::start().await;
    let secret = "aGVsbG8tdGhpcy1pcy1hLXNlY3JldC1rZXktMzJiISE=";
    let tunnel = json!({"vpn_tunnel_config": {"private_key": secret, "private_key_file": "/etc/hub/wg.key",
        "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "preshared_key": secret,
            "allowed_ips": ["10.9.0.0/16"]}]}});
    let document = personality("vpn", &tunnel);
    let refused = hub.fake.send(Method::POST, "/v1/personalities", &document).await;
    refused.assert_problem(422);
    let mut pointers = refused.pointers();
    pointers.sort();
    let wanted = ["/vpn_tunnel_config/peers/0/preshared_key", "/vpn_tunnel_config/private_key"];
    assert_eq!(pointers, wanted, "{}", refused.body);
    assert!(!refused.body.to_string().contains(secret), "{}", refused.body);

    let text = serde_saphyr::to_string(&document).unwrap();
    let post = Request::post("/v1/personalities").header(header::CONTENT_TYPE, "application/yaml");
    let refused = hub.fake.ask(post.body(Body::from(text)).unwrap()).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers().len(), 2);
    assert!(!refused.body.to_string().contains(secret), "{}", refused.body);
}

#[tokio::test]
async fn wrong_personalities_have_pointers() {
    let hub = Switching::start().await;
    let wrong = personality(
        "x",
        &json!({"subnet_id": 5, "dns_servers": ["here"], "routing_table": [{"destination": "all"}],
            "drain": {"timeout": "2h", "scope": "some"}, "schema_version": 2}),
    );
    let refused = hub.fake.send(Method::POST, "/v1/personalities", &wrong).await;
    refused.assert_problem(422);
    let pointers = refused.pointers();
    for pointer in ["/subnet_id", "/dns_servers/0", "/routing_table/0/destination", "/drain/scope"] {
        assert!(pointers.iter().any(|found| found == pointer), "{pointer} in {}", refused.body);
    }
    let nowhere = personality("x", &json!({"subnet_id": "nowhere"}));
    let refused = hub.fake.send(Method::POST, "/v1/personalities", &nowhere).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers(), ["/subnet_id"]);
    for path in ["/v1/personalities?cursor=x", "/v1/personalities?limit=0", "/v1/interfaces?label=x"] {
        hub.fake.get(path).await.assert_problem(400);
    }
    hub.fake.get("/v1/personalities/web@0").await.assert_problem(404);
}

#[tokio::test]
async fn records_are_made_replaced_and_forgotten() {
    let hub = Switching::start().await;
    let held = hub.fake.get("/v1/interfaces/web-1").await;
    assert_eq!((&held.body["state"], &held.body["current"]), (&json!("active"), &json!("web@1")));
    assert_eq!(held.body["definition"], record(1, "web"));
    hub.fake.send(Method::POST, "/v1/interfaces", &record(1, "web")).await.assert_problem(409);

    let mut changed = record(1, "web");
    changed["default"] = json!("lockdown");
    let put = |tag: &str, body: &Value| {
        let mut put = request(Method::PUT, "/v1/interfaces/web-1", body);
        put.headers_mut().insert("if-match", tag.parse().unwrap());
        put
    };
    let replaced = hub.fake.ask(put(held.header("etag"), &changed)).await;
    assert_eq!((replaced.status, &replaced.body["default"]), (StatusCode::OK, &json!("lockdown@1")));
    hub.fake.ask(put(held.header("etag"), &changed)).await.assert_problem(412);
    assert_eq!(hub.fake.ask(put("*", &changed)).await.status, StatusCode::OK);
    changed["interface"] = json!("eth9");
    hub.fake.send(Method::PUT, "/v1/interfaces/web-1", &changed).await.assert_problem(409);
    let named = hub.fake.send(Method::PUT, "/v1/interfaces/web-1", &record(3, "web")).await;
    named.assert_problem(422);
    assert_eq!(named.pointers(), ["/name"]);
    hub.fake.send(Method::PUT, "/v1/interfaces/web-3", &record(3, "web")).await.assert_problem(404);

    let mut wrong = record(3, "nothing");
    wrong["default"] = json!("none");
    let refused = hub.fake.send(Method::POST, "/v1/interfaces", &wrong).await;
    refused.assert_problem(422);
    assert!(refused.pointers().contains(&"/default".to_owned()), "{}", refused.body);

    let list = |path: &'static str| async { hub.fake.get(path).await.body["interfaces"].clone() };
    assert_eq!(list("/v1/interfaces?label=tier%3Dweb").await.as_array().unwrap().len(), 2);
    assert_eq!(list("/v1/interfaces?personality=web2").await[0]["name"], "web-2");
    assert_eq!(list("/v1/interfaces?state=degraded").await, json!([]));

    assert_eq!(hub.fake.send(Method::DELETE, "/v1/interfaces/web-2", &Value::Null).await.status, 204);
    hub.fake.get("/v1/interfaces/web-2").await.assert_problem(404);
    hub.fake.send(Method::DELETE, "/v1/interfaces/web-2", &Value::Null).await.assert_problem(404);
}

#[tokio::test]
async fn the_same_key_makes_one_record() {
    let hub = Switching::start().await;
    assert_eq!(hub.fake.send(Method::DELETE, "/v1/interfaces/web-2", &Value::Null).await.status, 204);
    let post = |body: &Value| {
        let mut post = request(Method::POST, "/v1/interfaces", body);
        post.headers_mut().insert("idempotency-key", "once".parse().unwrap());
        post
    };
    let first = hub.fake.ask(post(&record(2, "web2"))).await;
    let second = hub.fake.ask(post(&record(2, "web2"))).await;
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(first.body, second.body);
    hub.fake.ask(post(&record(3, "web2"))).await.assert_problem(422);
}
