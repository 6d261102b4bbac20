//! Delivers alerts by `POST`: in order, signed, again until taken or given up.
//!
//! Each receiver has a queue of its own, so that one that is dead keeps nobody waiting. A full queue throws
//! away what is new, and counts it. What waits is kept for the next daemon: a receiver may be told twice, after a
//! crash, but is not passed over.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, header};
use http_body_util::Full;
use tokio::sync::mpsc;

use super::outbox::{Outbox, WAITING};
use super::{AlertEvent, Deliveries};
use crate::client::Target;
use crate::client::tls::Connector;
use crate::model::personality::hexadecimal;
use crate::model::webhook::Webhook;

/// Most time for one try.
const ANSWER: Duration = Duration::from_secs(5);
/// Waits between tries; after the last one the alert is given up.
const WAITS: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_mins(1),
    Duration::from_mins(1),
];
/// Header with the signature: `sha256=` and the HMAC of the body in hexadecimal.
const SIGNATURE: &str = "x-hub-signature-256";

/// Queues to all receivers.
#[derive(Debug)]
pub struct Webhooks {
    queues: Vec<mpsc::Sender<Arc<AlertEvent>>>,
    deliveries: Arc<Deliveries>,
}

impl Webhooks {
    /// Starts a task for each receiver, which goes on with what an earlier daemon left in the folder.
    pub fn start(hooks: &[Webhook], folder: &Path, deliveries: &Arc<Deliveries>) -> Self {
        Outbox::sweep(folder, hooks);
        let queues = hooks.iter().map(|hook| {
            let (sender, events) = mpsc::channel(WAITING);
            let (outbox, deliveries) = (Outbox::open(folder, hook), Arc::clone(deliveries));
            tokio::spawn(Delivery { hook: hook.clone(), events, outbox, deliveries }.run());
            sender
        });
        Self { queues: queues.collect(), deliveries: Arc::clone(deliveries) }
    }

    /// Queues an alert for everybody; never waits.
    pub fn send(&self, event: &Arc<AlertEvent>) {
        for queue in &self.queues {
            if queue.try_send(Arc::clone(event)).is_err() {
                lost(&self.deliveries, event);
            }
        }
    }
}

fn lost(deliveries: &Deliveries, event: &AlertEvent) {
    deliveries.dropped.add(1);
    tracing::warn!(alert = event.alert, "too many alerts wait for a webhook: one is lost");
}

/// What one receiver is told.
struct Delivery {
    hook: Webhook,
    events: mpsc::Receiver<Arc<AlertEvent>>,
    outbox: Outbox,
    deliveries: Arc<Deliveries>,
}

impl Delivery {
    /// Tells one after the other until the daemon ends.
    async fn run(mut self) {
        loop {
            let Some(event) = self.outbox.front() else {
                let Some(event) = self.events.recv().await else { return };
                self.take(&event);
                continue;
            };
            let (alert, body) = (event.alert.clone(), serde_json::to_vec(event));
            if let Ok(body) = body
                && !self.tell(&alert, body.into()).await
            {
                return;
            }
            self.outbox.pop();
        }
    }

    fn take(&mut self, event: &AlertEvent) {
        if !self.outbox.push(event) {
            lost(&self.deliveries, event);
        }
    }

    /// Tries until it is taken, or given up. Returns whether the daemon goes on.
    async fn tell(&mut self, alert: &str, body: Bytes) -> bool {
        let mut waits = WAITS.iter();
        loop {
            let tried = tokio::time::timeout(ANSWER, post(&self.hook, body.clone())).await;
            let error = match tried {
                Ok(Ok(())) => {
                    self.deliveries.delivered.add(1);
                    return true;
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => io::Error::from(io::ErrorKind::TimedOut),
            };
            let host = &self.hook.url.host;
            let Some(wait) = waits.next() else {
                self.deliveries.failed.add(1);
                tracing::error!(host, alert, %error, "webhook given up");
                return true;
            };
            tracing::warn!(host, alert, %error, ?wait, "webhook failed");
            let again = tokio::time::sleep(*wait);
            tokio::pin!(again);
            loop {
                // What comes meanwhile is kept at once.
                tokio::select! {
                    () = &mut again => break,
                    event = self.events.recv() => match event {
                        Some(event) => self.take(&event),
                        None => return false,
                    },
                }
            }
        }
    }
}

async fn post(hook: &Webhook, body: Bytes) -> io::Result<()> {
    let tls = hook.ca.as_deref().map(|ca| Connector::read(ca, None)).transpose().map_err(io::Error::other)?;
    let target = Target::Tcp { host: hook.url.host.clone(), port: hook.url.port, tls };
    let mut request = Request::post(&hook.url.path)
        .header(header::HOST, target.host())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("hubd/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &hook.secret_file {
        // Read at every try, so that a key may be replaced.
        let key = tokio::fs::read(path).await?;
        request = request.header(SIGNATURE, signature(key.trim_ascii(), &body));
    }
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    let answer = target.send(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("it answered {status}"))) }
}

fn signature(key: &[u8], body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let tag = ring::hmac::sign(&key, body);
    format!("sha256={}", hexadecimal(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(alert: &str) -> Arc<AlertEvent> {
        Arc::new(AlertEvent {
            time: jiff::Timestamp::UNIX_EPOCH,
            persona: None,
            alert: alert.to_owned(),
            state: "firing".to_owned(),
            metric: "drops".to_owned(),
            of: None,
            op: ">".to_owned(),
            threshold: 1.0,
            value: Some(2.0),
            message: String::new(),
        })
    }

    /// Hears one request and answers it; the name of the alert that it told.
    async fn hear(listener: &tokio::net::TcpListener) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut said, mut part) = (String::new(), [0; 4_096]);
        while !said.ends_with('}') {
            let read = stream.read(&mut part).await.unwrap();
            said.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let body = said.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str::<AlertEvent>(body).unwrap().alert
    }

    #[tokio::test]
    async fn what_a_receiver_did_not_take_the_next_daemon_tells() {
        let folder = tempfile::tempdir().unwrap();
        // A port that nobody listens at yet.
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let url = crate::model::url::Url::parse(&format!("http://127.0.0.1:{port}/alerts")).unwrap();
        let hook = Webhook { url, ca: None, secret_file: None };
        let deliveries = Arc::new(Deliveries::default());
        let files =
            || folder.path().read_dir().map(|found| found.flatten().collect::<Vec<_>>()).unwrap_or_default();
        let kept = || files().first().map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());

        let first = Webhooks::start(std::slice::from_ref(&hook), folder.path(), &deliveries);
        first.send(&event("one"));
        first.send(&event("two"));
        while !kept().is_some_and(|kept| kept.contains("one") && kept.contains("two")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The daemon ends with its queues.
        drop(first);
        tokio::time::sleep(WAITS[0]).await;
        assert_eq!(deliveries.delivered.get(), 0);

        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let next = Webhooks::start(std::slice::from_ref(&hook), folder.path(), &deliveries);
        next.send(&event("three"));
        for expected in ["one", "two", "three"] {
            assert_eq!(hear(&listener).await, expected, "in the order of their times");
        }
        while kept().as_deref() != Some("[]") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(deliveries.delivered.get(), 3);
        // Without the receiver its file goes, too.
        drop(Webhooks::start(&[], folder.path(), &deliveries));
        assert!(files().is_empty());
    }

    #[test]
    fn signatures_are_hmac_sha256() {
        // RFC 4231, test case 2.
        let said = signature(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(said, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
