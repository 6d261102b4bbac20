//! `?watch`: the personas as they are, then what becomes of them.

use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use hub_daemon::inputs::rest::STREAMS;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tower::ServiceExt as _;

use crate::cli::command;
use crate::events::Reader;
use crate::listeners::Served;
use crate::support::{FILED, Fake, document};

/// Lines of a command that goes on.
struct Lines(Child, tokio::io::Lines<BufReader<ChildStdout>>);

impl Lines {
    fn of(served: &Served, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        let mut child = command.env("HUB_SOCKET", &served.socket).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self(child, lines)
    }

    async fn next(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(20), self.1.next_line()).await;
        line.unwrap().unwrap().unwrap_or_else(|| panic!("hubctl ended: {:?}", self.0))
    }
}

/// The next events as (name, persona's name).
async fn told(reader: &mut Reader, count: usize) -> Vec<(String, String)> {
    let mut told = Vec::new();
    for _ in 0..count {
        let (name, data) = reader.next().await;
        let whose = data["definition"]["name"].as_str().unwrap_or_default().to_owned();
        told.push((name, whose));
    }
    told
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(name, whose)| ((*name).to_owned(), (*whose).to_owned())).collect()
}

#[tokio::test]
async fn a_watch_begins_with_all_there_is_and_goes_on_with_changes() {
    let fake = Fake::start();
    fake.create("a").await;
    for base in ["/personas?watch", "/v1/personas?watch=true"] {
        let mut reader = Reader::open(&fake, base).await;
        assert_eq!(told(&mut reader, 2).await, pairs(&[("added", FILED), ("added", "a")]));
        assert_eq!(reader.next().await, ("current".into(), json!({"personas": 2})));
        let made = fake.create("b").await;
        let (name, data) = reader.next().await;
        assert_eq!((name.as_str(), &data), ("added", &made), "the whole view");
        fake.send(Method::PUT, "/personas/b", &document("b")).await;
        let (name, data) = reader.next().await;
        assert_eq!((name.as_str(), &data["generation"]), ("modified", &json!(2)));
        fake.send(Method::DELETE, "/personas/b", &Value::Null).await;
        assert_eq!(told(&mut reader, 1).await, pairs(&[("deleted", "b")]));
    }
    let listed = fake.get("/personas?watch=false").await;
    assert_eq!(listed.body["personas"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_watch_shows_what_fits_and_says_when_it_no_longer_does() {
    let fake = Fake::start();
    fake.create("a").await;
    let mut reader = Reader::open(&fake, "/personas?watch&origin=api&label=tier%3D1").await;
    assert_eq!(reader.next().await, ("current".into(), json!({"personas": 0})));
    let labelled = |tier: &str| {
        let mut labelled = document("a");
        labelled["labels"] = json!({"tier": tier});
        labelled
    };
    for (tier, name) in [("1", "added"), ("1", "modified"), ("2", "deleted")] {
        fake.send(Method::PUT, "/personas/a", &labelled(tier)).await;
        assert_eq!(told(&mut reader, 1).await, pairs(&[(name, "a")]), "tier {tier}");
    }
}

#[tokio::test]
async fn one_persona_is_watched_to_its_end() {
    let fake = Fake::start();
    fake.create("a").await;
    let mut reader = Reader::open(&fake, "/v1/personas/a?watch").await;
    assert_eq!(told(&mut reader, 2).await, pairs(&[("added", "a"), ("current", "")]));
    fake.create("b").await;
    fake.send(Method::DELETE, "/personas/a", &Value::Null).await;
    assert_eq!(told(&mut reader, 1).await, pairs(&[("deleted", "a")]));
    assert!(reader.is_over().await, "another one of this name is another one");
}

#[tokio::test]
async fn a_slow_reader_misses_what_did_not_last_and_never_how_it_ended() {
    let fake = Fake::start();
    let mut reader = Reader::open(&fake, "/personas?watch").await;
    assert_eq!(told(&mut reader, 2).await, pairs(&[("added", FILED), ("current", "")]));
    fake.create("a").await;
    for _ in 0..100 {
        fake.send(Method::PUT, "/personas/a", &document("a")).await;
        fake.create("short").await;
        fake.send(Method::DELETE, "/personas/short", &Value::Null).await;
    }
    let (name, data) = reader.next().await;
    assert_eq!(
        (name.as_str(), &data["generation"]),
        ("added", &json!(101)),
        "one state waits, not a hundred"
    );
    fake.create("b").await;
    assert_eq!(told(&mut reader, 1).await, pairs(&[("added", "b")]));
}

#[tokio::test]
async fn watches_are_bounded_with_other_streams_and_kept_alive() {
    let fake = Fake::start();
    let mut readers = Vec::new();
    for number in 0..STREAMS {
        let path = ["/events", "/personas?watch", "/personas/filed?watch"][number % 3];
        readers.push(Reader::open(&fake, path).await);
    }
    fake.get("/v1/personas?watch").await.assert_problem(503);
    fake.get("/v1/personas/filed?watch").await.assert_problem(503);
    drop(readers.remove(1));
    Reader::open(&fake, "/personas?watch").await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_kept_alive() {
    let fake = Fake::start();
    let mut reader = Reader::open(&fake, "/personas?watch&origin=api").await;
    assert_eq!(reader.next().await.0, "current");
    assert_eq!(reader.next().await, (String::new(), Value::Null), "a comment");
}

#[tokio::test]
async fn wrong_questions_are_refused() {
    let fake = Fake::start();
    for query in ["watch&limit=5", "watch&cursor=a", "watch=maybe", "watch&watch", "watch&state=odd"] {
        fake.get(&format!("/personas?{query}")).await.assert_problem(400);
    }
    for path in
        ["/personas/filed?watch=maybe", "/personas/filed?watch&origin=api", "/personas/filed?colour=red"]
    {
        fake.get(path).await.assert_problem(400);
    }
    fake.get("/personas/none?watch").await.assert_problem(404);
    let get = Request::get("/personas/filed").body(Body::empty()).unwrap();
    assert_eq!(fake.router.clone().oneshot(get).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn hubctl_shows_a_line_for_each_change() {
    let served = Served::start();
    let mut shown = Lines::of(&served, &["persona", "list", "--watch", "--origin", "api"]);
    served.fake.create("dev").await;
    let line = shown.next().await;
    assert!(line.starts_with("added dev active 10.100.0.0/24 "), "{line}");
    served.fake.send(Method::DELETE, "/personas/dev", &Value::Null).await;
    assert!(shown.next().await.starts_with("deleted dev "));
    let mut shown = Lines::of(&served, &["persona", "list", "-w", "--json"]);
    let event: Value = serde_json::from_str(&shown.next().await).unwrap();
    assert_eq!((&event["event"], &event["data"]["definition"]["name"]), (&json!("added"), &json!(FILED)));
    let event: Value = serde_json::from_str(&shown.next().await).unwrap();
    assert_eq!(event, json!({"event": "current", "data": {"personas": 1}}));
}
