//! The other hubs, as this one reaches them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names;
use super::problems::Problems;
use super::url::Url;
use crate::document::hub::HubDocument;
use crate::document::node::OtherNodeDocument;

/// Most other hubs: all of them are asked at once.
const NODES: usize = 64;

/// Another hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNode {
    /// Its name.
    pub name: String,
    /// Its API, as written.
    pub url: String,
    /// Where that is.
    pub place: Place,
    /// File with the token that it asks for.
    pub token_file: Option<PathBuf>,
}

/// Where the API of another hub is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket of this machine.
    Unix(PathBuf),
    /// Over TCP.
    Tcp {
        /// Host and port.
        url: Url,
        /// Whom to trust, and what to show; absent for plain HTTP.
        trust: Option<Trust>,
    },
}

/// PEM files for https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The authority of the hub's certificate.
    pub ca: PathBuf,
    /// Certificate to show, and its key.
    pub shown: Option<(PathBuf, PathBuf)>,
}

impl OtherNode {
    /// Checks `nodes` of a `hub.yaml` that lies in `folder`.
    pub fn list(problems: &mut Problems, document: &HubDocument, folder: &Path) -> Vec<Self> {
        let written = &document.nodes;
        if written.len() > NODES {
            problems.add("/nodes", format!("{} nodes: use at most {NODES}", written.len()));
        }
        let mut names: BTreeSet<&str> = document.node.name.as_deref().into_iter().collect();
        let mut nodes = Vec::new();
        for (index, other) in written.iter().enumerate() {
            let base = format!("/nodes/{index}");
            let pointer = format!("{base}/name");
            if problems.take(&pointer, names::persona(&other.name)).is_some() && !names.insert(&other.name) {
                let detail =
                    format!("node `{}` is there already: `nodes` are the other hubs, each once", other.name);
                problems.add(pointer, detail);
            }
            nodes.extend(place(problems, &base, other, folder).map(|place| Self {
                name: other.name.clone(),
                url: other.url.clone(),
                place,
                token_file: other.token_file.as_ref().map(|path| folder.join(path)),
            }));
        }
        nodes
    }

    /// Where a path of its API is, for others.
    pub fn locate(&self, path: &str) -> String {
        match &self.place {
            Place::Unix(_) => format!("{}:{path}", self.url),
            Place::Tcp { .. } => format!("{}{path}", self.url.trim_end_matches('/')),
        }
    }
}

fn place(problems: &mut Problems, base: &str, written: &OtherNodeDocument, folder: &Path) -> Option<Place> {
    let OtherNodeDocument { url, token_file, ca, cert, key, .. } = written;
    let unfit = |problems: &mut Problems, detail: &str, fields: &[(&str, &Option<PathBuf>)]| {
        for (field, _) in fields.iter().filter(|(_, path)| path.is_some()) {
            problems.add(format!("{base}/{field}"), detail);
        }
    };
    let files = [("ca", ca), ("cert", cert), ("key", key)];
    if let Some(path) = url.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
        unfit(problems, "is for https: a socket is guarded by its mode", &files);
        unfit(problems, "is for TCP: a socket is guarded by its mode", &[("token_file", token_file)]);
        return Some(Place::Unix(path.into()));
    }
    let Some(parsed) = Url::parse(url).filter(|url| url.path == "/") else {
        let detail = format!("url `{url}`: use https://HOST:PORT, http://HOST:PORT or unix:/PATH");
        problems.add(format!("{base}/url"), detail);
        return None;
    };
    if !parsed.secure {
        unfit(problems, "is for https", &files);
        return Some(Place::Tcp { url: parsed, trust: None });
    }
    let shown = match (cert, key) {
        (Some(cert), Some(key)) => Some((folder.join(cert), folder.join(key))),
        (None, None) => None,
        (Some(_), None) => {
            problems.add(format!("{base}/cert"), "`cert` needs `key`");
            None
        }
        (None, Some(_)) => {
            problems.add(format!("{base}/key"), "`key` needs `cert`");
            None
        }
    };
    let Some(ca) = ca else {
        problems.add(format!("{base}/url"), "https needs `ca`: the authority that is trusted");
        return None;
    };
    Some(Place::Tcp { url: parsed, trust: Some(Trust { ca: folder.join(ca), shown }) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(nodes: &Value) -> Result<Vec<OtherNode>, Vec<(String, String)>> {
        let document = json!({"node": {"name": "east-1"}, "nodes": nodes});
        let document: HubDocument = serde_json::from_value(document).unwrap();
        let mut problems = Problems::default();
        let nodes = OtherNode::list(&mut problems, &document, Path::new("/etc/hub"));
        problems.settle(nodes).map_err(|found| found.into_iter().map(|p| (p.pointer, p.detail)).collect())
    }

    #[test]
    fn other_hubs_are_reached_over_tls_tcp_or_a_socket() {
        let nodes = read(&json!([
            {"name": "a", "url": "https://[fd00::1]:8443", "token_file": "a.token", "ca": "ca.pem",
             "cert": "me.pem", "key": "/keys/me.key"},
            {"name": "b", "url": "http://192.0.2.2:8080/", "token_file": "b.token"},
            {"name": "c", "url": "unix:/run/hub-c/hubd.sock"},
        ]));
        let nodes = nodes.unwrap();
        let Place::Tcp { url, trust: Some(trust) } = &nodes[0].place else { panic!("{nodes:?}") };
        assert_eq!((url.host.as_str(), url.port), ("fd00::1", 8443));
        let shown = Some(("/etc/hub/me.pem".into(), "/keys/me.key".into()));
        assert_eq!(*trust, Trust { ca: "/etc/hub/ca.pem".into(), shown });
        assert_eq!(nodes[0].token_file.as_deref(), Some(Path::new("/etc/hub/a.token")));
        assert!(matches!(&nodes[1].place, Place::Tcp { url, trust: None } if url.port == 8_080));
        assert_eq!(nodes[2].place, Place::Unix("/run/hub-c/hubd.sock".into()));
        assert_eq!(nodes[1].locate("/v1/x"), "http://192.0.2.2:8080/v1/x");
        assert_eq!(nodes[2].locate("/v1/x"), "unix:/run/hub-c/hubd.sock:/v1/x");
    }

    #[test]
    fn what_cannot_be_reached_is_refused_whole() {
        let wrong = |more: Value| {
            let mut node = json!({"name": "a"});
            node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut found = read(&json!([node])).unwrap_err();
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0).0
        };
        for (more, pointer) in [
            (json!({"url": "east-2:8443"}), "/nodes/0/url"),
            (json!({"url": "ftp://east-2"}), "/nodes/0/url"),
            (json!({"url": "unix:hubd.sock"}), "/nodes/0/url"),
            (json!({"url": "http://east-2/v1"}), "/nodes/0/url"),
            (json!({"url": "https://east-2"}), "/nodes/0/url"),
            (json!({"url": "http://east-2", "ca": "ca.pem"}), "/nodes/0/ca"),
            (json!({"url": "unix:/a", "token_file": "t"}), "/nodes/0/token_file"),
            (json!({"url": "https://east-2", "ca": "c", "cert": "m"}), "/nodes/0/cert"),
            (json!({"url": "https://east-2", "ca": "c", "key": "m"}), "/nodes/0/key"),
            (json!({"url": "unix:/a", "name": "-"}), "/nodes/0/name"),
            (json!({"url": "unix:/a", "name": "east-1"}), "/nodes/0/name"),
        ] {
            assert_eq!(wrong(more.clone()), pointer, "{more}");
        }
        let twice = json!([{"name": "a", "url": "unix:/a"}, {"name": "a", "url": "unix:/b"}]);
        let found = read(&twice).unwrap_err();
        assert!(found[0].0 == "/nodes/1/name" && found[0].1.contains("is there already"), "{found:?}");
        let many: Vec<Value> =
            (0..=NODES).map(|n| json!({"name": format!("n{n}"), "url": "unix:/a"})).collect();
        assert_eq!(
            read(&json!(many)).unwrap_err(),
            [("/nodes".to_owned(), "65 nodes: use at most 64".to_owned())]
        );
    }
}
