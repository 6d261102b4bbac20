//! Receivers of alerts.

use std::path::{Path, PathBuf};

use super::problems::Problems;
use super::url::Url;
use crate::document::alert::WebhookDocument;

/// Most receivers.
const WEBHOOKS: usize = 8;

/// A receiver of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it listens.
    pub url: Url,
    /// PEM file with the authority of the certificate; absent for plain HTTP.
    pub ca: Option<PathBuf>,
    /// File with the key of the signature.
    pub secret_file: Option<PathBuf>,
}

impl Webhook {
    /// Checks the list of a document that lies in `folder`.
    pub fn list(problems: &mut Problems, written: &[WebhookDocument], folder: &Path) -> Vec<Self> {
        if written.len() > WEBHOOKS {
            problems.add("/webhooks", format!("{} webhooks: use at most {WEBHOOKS}", written.len()));
        }
        let hooks = written.iter().enumerate();
        hooks.filter_map(|(index, document)| Self::new(problems, index, document, folder)).collect()
    }

    fn new(problems: &mut Problems, index: usize, document: &WebhookDocument, folder: &Path) -> Option<Self> {
        let pointer = format!("/webhooks/{index}/url");
        let wrong = || format!("url `{}`: use http://HOST:PORT/PATH, or https with `ca`", document.url);
        let Some(url) = Url::parse(&document.url) else {
            problems.add(pointer, wrong());
            return None;
        };
        if url.secure != document.ca.is_some() {
            let detail =
                if url.secure { "https needs `ca`: the authority that is trusted" } else { "is for https" };
            problems.add(format!("/webhooks/{index}/ca"), detail);
        }
        Some(Self {
            url,
            ca: document.ca.as_ref().map(|path| folder.join(path)),
            secret_file: document.secret_file.as_ref().map(|path| folder.join(path)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, ca: Option<&str>) -> Result<Vec<Webhook>, Vec<crate::command::Problem>> {
        let document = WebhookDocument { url: url.into(), secret_file: None, ca: ca.map(Into::into) };
        let mut problems = Problems::default();
        let hooks = Webhook::list(&mut problems, &[document], Path::new("/etc/hub"));
        problems.settle(hooks)
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = read("http://[fd00::1]:8080/in?a=1", None).unwrap().remove(0).url;
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("fd00::1", 8080, "/in?a=1"));
        let hook = read("https://alerts.example", Some("ca.pem")).unwrap().remove(0);
        assert_eq!((hook.url.port, &*hook.url.path, hook.ca), (443, "/", Some("/etc/hub/ca.pem".into())));
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused() {
        for (url, ca) in [
            ("alerts.example/in", None),
            ("ftp://alerts.example/in", None),
            ("http://user:word@alerts.example/", None),
            ("https://alerts.example/", None),
            ("http://alerts.example/", Some("ca.pem")),
        ] {
            assert_eq!(read(url, ca).unwrap_err().len(), 1, "{url}");
        }
    }
}
