//! Delivers alerts by `POST`: in order, signed, again until taken or given up.
//!
//! Each receiver has a queue of its own, so that one that is dead keeps nobody waiting. A full queue throws
//! away what is new, and counts it.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, header};
use http_body_util::Full;
use tokio::sync::mpsc;

use super::{AlertEvent, Deliveries};
use crate::client::Target;
use crate::client::tls::Connector;
use crate::model::webhook::Webhook;

/// Alerts that wait for one receiver.
const QUEUE: usize = 256;
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
    /// Starts a task for each receiver.
    pub fn start(hooks: &[Webhook], deliveries: &Arc<Deliveries>) -> Self {
        let queues = hooks.iter().map(|hook| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(deliver(hook.clone(), receiver, Arc::clone(deliveries)));
            sender
        });
        Self { queues: queues.collect(), deliveries: Arc::clone(deliveries) }
    }

    /// Queues an alert for everybody; never waits.
    pub fn send(&self, event: &Arc<AlertEvent>) {
        for queue in &self.queues {
            if queue.try_send(Arc::clone(event)).is_err() {
                self.deliveries.dropped.add(1);
                tracing::warn!(alert = event.alert, "too many alerts wait for a webhook: one is lost");
            }
        }
    }
}

async fn deliver(hook: Webhook, mut events: mpsc::Receiver<Arc<AlertEvent>>, deliveries: Arc<Deliveries>) {
    while let Some(event) = events.recv().await {
        let Ok(body) = serde_json::to_vec(&*event) else { continue };
        let body = Bytes::from(body);
        let mut waits = WAITS.iter();
        loop {
            let tried = tokio::time::timeout(ANSWER, post(&hook, body.clone())).await;
            let error = match tried {
                Ok(Ok(())) => {
                    deliveries.delivered.add(1);
                    break;
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => io::Error::from(io::ErrorKind::TimedOut),
            };
            let Some(wait) = waits.next() else {
                deliveries.failed.add(1);
                tracing::error!(host = hook.url.host, alert = event.alert, %error, "webhook given up");
                break;
            };
            tracing::warn!(host = hook.url.host, alert = event.alert, %error, ?wait, "webhook failed");
            tokio::time::sleep(*wait).await;
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
    let mut text = "sha256=".to_owned();
    for byte in tag.as_ref() {
        write!(text, "{byte:02x}").expect("a String takes all text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_hmac_sha256() {
        // RFC 4231, test case 2.
        let said = signature(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(said, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
