//! The event stream: order, filters, loss, and its bound.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::StreamExt as _;
use hub_daemon::inputs::rest::STREAMS;
use tower::ServiceExt as _;

use crate::support::{Fake, change};

/// An open stream, read as text.
pub(crate) struct Reader(axum::body::BodyDataStream, String);

impl Reader {
    pub(crate) async fn open(fake: &Fake, path: &str) -> Self {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = fake.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body().into_data_stream(), String::new())
    }

    /// The next event as (name, data).
    pub(crate) async fn next(&mut self) -> (String, serde_json::Value) {
        while !self.1.contains("\n\n") {
            let bytes = tokio::time::timeout(Duration::from_mins(1), self.0.next()).await.unwrap();
            self.1.push_str(std::str::from_utf8(&bytes.unwrap().unwrap()).unwrap());
        }
        let (record, rest) = self.1.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let line = record.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let event = (field("event:"), serde_json::from_str(&field("data:")).unwrap_or_default());
        self.1 = rest.into();
        event
    }

    /// Whether the stream ends, and says nothing before it does.
    pub(crate) async fn is_over(&mut self) -> bool {
        let rest = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await;
        self.1.is_empty() && rest.is_ok_and(|bytes| bytes.is_none())
    }
}

#[tokio::test]
async fn events_come_in_order() {
    let fake = Fake::start();
    let mut reader = Reader::open(&fake, "/v1/events").await;
    for number in 0..5 {
        fake.hub.events.send(change(number)).unwrap();
    }
    for number in 0..5 {
        let (name, data) = reader.next().await;
        assert_eq!(name, "change");
        assert_eq!(data["persona"], format!("p{number}"));
        assert_eq!(data["type"], "change");
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let fake = Fake::start();
    let mut reader = Reader::open(&fake, "/events").await;
    for number in 0..20 {
        fake.hub.events.send(change(number)).unwrap();
    }
    let (name, data) = reader.next().await;
    assert_eq!((name.as_str(), &data["lost"]), ("lagged", &serde_json::json!(12)));
    assert_eq!(reader.next().await.1["persona"], "p12");
}

#[tokio::test]
async fn a_stream_shows_what_was_asked_for() {
    let fake = Fake::start();
    let mut about = Reader::open(&fake, "/events?type=change&persona=p2").await;
    for number in 0..4 {
        fake.hub.events.send(change(number)).unwrap();
    }
    assert_eq!(about.next().await.1["persona"], "p2");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_kept_alive() {
    let fake = Fake::start();
    let mut reader = Reader::open(&fake, "/events").await;
    let (name, data) = reader.next().await;
    assert_eq!((name.as_str(), data), ("", serde_json::Value::Null));
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let fake = Fake::start();
    let mut readers = Vec::new();
    for _ in 0..STREAMS {
        readers.push(Reader::open(&fake, "/events").await);
    }
    fake.get("/v1/events").await.assert_problem(503);
    drop(readers.pop());
    Reader::open(&fake, "/events").await;
}
