//! What each route answers when all is well.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::support::{FILED, Fake, SLOW, document, request};

#[tokio::test]
async fn a_persona_is_created_read_changed_and_deleted() {
    let fake = Fake::start();
    for base in ["", "/v1"] {
        let created = fake.send(Method::POST, &format!("{base}/personas"), &document("dev")).await;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
        let id = created.body["id"].as_str().unwrap().to_owned();
        let tag = created.header("etag").to_owned();
        assert!(tag.starts_with(&format!("\"{id}.1.")), "{tag}");
        let location = created.header("location").to_owned();
        assert_eq!(location, format!("{base}/personas/{}", created.body["id"].as_str().unwrap()));
        assert_eq!(created.body["definition"]["name"], "dev");

        for path in [&location, &format!("{base}/personas/dev")] {
            let shown = fake.get(path).await;
            assert_eq!((shown.status, &shown.body), (StatusCode::OK, &created.body));
        }

        let replaced = fake.send(Method::PUT, &location, &document("dev")).await;
        assert_eq!(replaced.status, StatusCode::OK);
        assert!(replaced.header("etag").starts_with(&format!("\"{id}.2.")));

        let patched = fake.send(Method::PATCH, &location, &json!({"name": "test"})).await;
        assert_eq!(patched.status, StatusCode::OK);
        assert!(patched.header("etag").starts_with(&format!("\"{id}.3.")));
        assert_eq!(patched.body["definition"]["name"], "test");

        let deleted = fake.send(Method::DELETE, &location, &Value::Null).await;
        assert_eq!(deleted.status, StatusCode::NO_CONTENT);
        fake.get(&location).await.assert_problem(404);
    }
}

#[tokio::test]
async fn creation_waits_for_the_kernel_unless_told_not_to() {
    let fake = Fake::start();
    assert_eq!(fake.create(SLOW).await["state"], "active");

    let fake = Fake::start();
    let mut hasty = request(Method::POST, "/personas", &document(SLOW));
    hasty.headers_mut().insert("prefer", "respond-async".parse().unwrap());
    let got = fake.ask(hasty).await;
    assert_eq!((got.status, &got.body["state"]), (StatusCode::ACCEPTED, &json!("provisioning")));
    let id = got.body["id"].as_str().unwrap();
    assert_eq!(got.header("location"), format!("/personas/{id}"), "where to ask whether it is there");
}

#[tokio::test]
async fn a_known_tag_spares_the_body() {
    let fake = Fake::start();
    fake.create("dev").await;
    let known = fake.get("/personas/dev").await.header("etag").to_owned();
    for (tag, status) in [(known.clone(), 304), (format!("W/{known}"), 304), ("\"1\"".to_owned(), 200)] {
        let get = Request::get("/personas/dev").header(header::IF_NONE_MATCH, &tag);
        let got = fake.ask(get.body(Body::empty()).unwrap()).await;
        assert_eq!((got.status.as_u16(), got.header("etag")), (status, known.as_str()), "{tag}");
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_one_persona_of_many_requests() {
    let fake = Fake::start();
    let keyed = |name: &str| {
        let mut post = request(Method::POST, "/personas", &document(name));
        post.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
        post
    };
    let answers = futures::future::join_all((0..8).map(|_| fake.ask(keyed("dev")))).await;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.body, answers[0].body);
    }
    fake.ask(keyed("other")).await.assert_problem(422);
    assert_eq!(fake.get("/personas").await.body["personas"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refused_key_may_be_tried_again() {
    let fake = Fake::start();
    fake.create("dev").await;
    let keyed = || {
        let mut post = request(Method::POST, "/personas", &document("dev"));
        post.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
        post
    };
    fake.ask(keyed()).await.assert_problem(409);
    fake.send(Method::DELETE, "/personas/dev", &Value::Null).await;
    assert_eq!(fake.ask(keyed()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let fake = Fake::start();
    for number in 0..5 {
        fake.create(&format!("p{number}")).await;
    }
    let names = async |query: &str| -> Vec<String> {
        let got = fake.get(&format!("/personas?{query}")).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.body);
        let personas = got.body["personas"].as_array().unwrap().clone();
        personas.iter().map(|p| p["definition"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("").await.len(), 6);
    assert_eq!(names("origin=file").await, [FILED]);
    assert_eq!(names("origin=api&name=p3").await, ["p3"]);
    assert_eq!(names("state=expired").await.len(), 0);
    let mut labelled = document("labelled");
    labelled["labels"] = json!({"team": "net", "tier": "1"});
    assert_eq!(fake.send(Method::POST, "/personas", &labelled).await.status, 201);
    assert_eq!(names("label=team%3Dnet&label=tier%3D1").await, ["labelled"]);
    assert_eq!(names("label=team%3Dnet&label=tier%3D2").await.len(), 0);
    fake.send(Method::DELETE, "/personas/labelled", &Value::Null).await;

    let mut cursor = String::new();
    let mut seen = Vec::new();
    loop {
        let page = fake.get(&format!("/personas?limit=4{cursor}")).await.body;
        seen.extend(page["personas"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
}

#[tokio::test]
async fn the_data_path_is_read() {
    let fake = Fake::start();
    let flows = fake.get(&format!("/personas/{FILED}/flows?limit=2")).await;
    assert_eq!(flows.status, StatusCode::OK, "{}", flows.body);
    assert_eq!(flows.body["flows"].as_array().unwrap().len(), 2);
    assert_eq!(flows.body["flows"][0]["source_persona"], FILED);
    assert_eq!(flows.body["flows"][0]["target_persona"], Value::Null);
    assert_eq!(fake.get("/flows").await.body["flow_table"]["established"], 3);

    let counters = fake.get(&format!("/personas/{FILED}/counters")).await;
    assert_eq!(counters.body["egress"]["packets"], 20);
    assert_eq!(fake.get("/counters").await.body["hooks"][0]["received"], 10);

    let question = json!({"protocol": "tcp", "source": "10.0.0.1", "target": "10.0.0.2", "target_port": 22});
    let answer = fake.send(Method::POST, "/why", &question).await;
    assert_eq!((answer.status, &answer.body["verdict"]), (StatusCode::OK, &json!("drop")));
}

#[tokio::test]
async fn the_hub_tells_its_condition() {
    let fake = Fake::start();
    let status = fake.get("/status").await;
    assert_eq!(status.status, StatusCode::OK, "{}", status.body);
    assert_eq!(status.body["personas"]["active"], 1);
    assert_eq!(status.body["attachments"][0]["program_id"], 42);
    assert_eq!(status.body["tables"][0]["puts"], 3);
    assert_eq!(fake.get("/healthz").await.body, json!({"status": "ok"}));
    assert_eq!(fake.get("/readyz").await.body, json!({"status": "ready"}));
}

#[tokio::test]
async fn a_plan_shows_changes_and_applying_shows_errors() {
    let fake = Fake::start();
    let plan = fake.get("/plan").await;
    assert_eq!(plan.body["changes"][0]["action"], "create", "{}", plan.body);
    let applied = fake.send(Method::POST, "/reload", &Value::Null).await;
    applied.assert_problem(422);
    assert_eq!(applied.pointers(), ["/qos/bandwidth"]);
    assert_eq!(applied.body["errors"][0]["place"]["line"], 2);
}
