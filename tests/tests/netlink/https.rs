//! Health checks of TLS servers: who they are is checked, as the check says by whom.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hub_tests::certificates::Until::{Far, Past};
use hub_tests::certificates::{Authority, Until};

use crate::checks::{Dnsmasq, ask, connected, page, tools};
use crate::lab::{Folder, Member, lab, wait_until};

/// A TLS server beside the hub.
struct Server(Child);

impl Server {
    /// Listens on one port with one certificate.
    fn start(port: u16, certificate: &Path) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-cert"]).arg(certificate);
        command.arg("-key").arg(certificate);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().expect("openssl is installed"));
        wait_until("the TLS server to listen", || {
            let listed = Command::new("ss").args(["-Hltn", &format!("sport = :{port}")]).output().unwrap();
            !listed.stdout.is_empty()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Servers of one authority, each for names of its own, and what a member thinks of them.
struct Scene {
    folder: Folder,
    authority: Authority,
    member: Member,
    servers: Vec<Server>,
    _dns: Dnsmasq,
}

impl Scene {
    fn new() -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        authority.write(&folder.path().join("ca.pem"));
        let (member, dns) = (connected(), Dnsmasq::start());
        Self { folder, authority, member, servers: Vec::new(), _dns: dns }
    }

    fn serve(&mut self, port: u16, names: &[&str], until: Until) {
        let path = self.folder.path().join(format!("{port}.pem"));
        self.authority.issue(&path, names, until);
        self.servers.push(Server::start(port, &path));
    }

    /// Whether a check passes, and what it says; whom it trusts is in a file of this name, if any.
    fn ask(&self, url: &str, ca: Option<&str>) -> (bool, String) {
        let mut tools = tools();
        tools.pace.phase = Duration::from_secs(1);
        let ca = ca.map(|name| self.folder.path().join(name));
        let [result] = ask(&self.member, vec![page(url, ca.as_deref())], &tools).try_into().unwrap();
        (result.passed, result.detail)
    }
}

#[test]
fn a_server_must_show_who_it_is_to_those_who_ask() {
    lab(|| {
        let mut scene = Scene::new();
        scene.serve(8443, &["host.example", "10.1.0.1", "fd01::1"], Far);
        for url in ["https://host.example:8443/x", "https://10.1.0.1:8443", "https://[fd01::1]:8443/"] {
            let (passed, detail) = scene.ask(url, Some("ca.pem"));
            assert!(passed && detail.starts_with("200 OK came in "), "{url}: {detail}");
            let (passed, detail) = scene.ask(url, None);
            assert!(!passed, "{url}: {detail}");
            let unknown = detail
                .ends_with(": who issued its certificate is unknown here: name the authority's file by `ca`");
            assert!(unknown, "{url}: {detail}");
            Authority::new().write(&scene.folder.path().join("other.pem"));
            let (passed, detail) = scene.ask(url, Some("other.pem"));
            assert!(
                !passed && detail.contains("who issued its certificate is not in `ca` /"),
                "{url}: {detail}"
            );
            let anybody = url.replace("https", "https+insecure");
            assert!(scene.ask(&anybody, None).0, "whoever answers is right");
        }
    });
}

#[test]
fn a_certificate_for_another_or_of_another_time_is_none() {
    lab(|| {
        let mut scene = Scene::new();
        scene.serve(8443, &["other.example", "10.1.0.2", "fd01::2"], Far);
        scene.serve(8444, &["host.example", "10.1.0.1", "fd01::1"], Past);
        for host in ["host.example", "10.1.0.1", "[fd01::1]"] {
            let (passed, detail) = scene.ask(&format!("https://{host}:8443/"), Some("ca.pem"));
            let bare = host.trim_matches(['[', ']']);
            let wanted = format!(": its certificate is for other.example, 10.1.0.2, fd01::2, not for {bare}");
            assert!(!passed && detail.ends_with(&wanted), "{detail}");
            let (passed, detail) = scene.ask(&format!("https://{host}:8444/"), Some("ca.pem"));
            let wanted = ": its certificate expired at 2020-01-01T00:00:00Z: renew it";
            assert!(!passed && detail.ends_with(wanted), "{detail}");
        }
    });
}

/// Answers every connection with words, as long as the test runs.
fn greet(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.write_all(b"220 mail.example is ready\r\n").ok();
        }
    });
}

#[test]
fn what_is_no_tls_and_what_is_no_authority_is_said() {
    lab(|| {
        let scene = Scene::new();
        // Somebody who speaks first, and no TLS.
        greet("[::]:8445");
        for host in ["10.1.0.1", "[fd01::1]"] {
            let (passed, detail) = scene.ask(&format!("https://{host}:8445/"), Some("ca.pem"));
            assert!(!passed && detail.ends_with(": it does not speak TLS"), "{detail}");
        }
        std::fs::write(scene.folder.path().join("empty.pem"), "nothing\n").unwrap();
        let (passed, detail) = scene.ask("https://10.1.0.1:8445/", Some("empty.pem"));
        assert!(!passed && detail.ends_with("empty.pem: there is no certificate in it"), "{detail}");
        let (passed, detail) = scene.ask("https://10.1.0.1:8445/", Some("missing.pem"));
        assert!(!passed && detail.contains("missing.pem: "), "{detail}");
    });
}
