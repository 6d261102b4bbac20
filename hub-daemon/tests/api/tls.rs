//! Certificates: only clients that show one of the named CA are answered.

use std::path::PathBuf;
use std::process::Output;

use hub_daemon::inputs::server::{self, TcpOptions, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::watch;

use crate::cli::hubctl;
use crate::listeners::Folder;
use crate::support::Fake;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate and its key; returns their paths.
fn issue(folder: &Folder, name: &str, authority: &CertifiedIssuer<'_, KeyPair>) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let certificate = folder.write(&format!("{name}.pem"), &certificate.pem(), 0o600);
    (certificate, folder.write(&format!("{name}.key"), &key.serialize_pem(), 0o600))
}

struct Scene {
    folder: Folder,
    url: String,
    authority: CertifiedIssuer<'static, KeyPair>,
    _closing: watch::Sender<bool>,
}

impl Scene {
    fn start(token: Option<&str>) -> Self {
        let folder = Folder::new();
        let authority = authority();
        folder.write("ca.pem", &authority.pem(), 0o600);
        let (certificate, key) = issue(&folder, "hub", &authority);
        let token_file = token.map(|token| folder.write("token", token, 0o600));
        let tls = TlsOptions { certificate, key, client_ca: Some(folder.join("ca.pem")) };
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = server::bind_tcp(&TcpOptions { address, token_file, tls: Some(tls) }).unwrap();
        let url = format!("https://{}", listener.address().unwrap());
        let (closing, closed) = watch::channel(false);
        tokio::spawn(server::serve(listener, Fake::start().router, closed));
        Self { folder, url, authority, _closing: closing }
    }

    async fn ask(&self, more: &[&str]) -> Output {
        let ca = self.folder.join("ca.pem").display().to_string();
        let mut arguments = vec!["--url", &self.url, "--ca", &ca, "status"];
        arguments.extend(more);
        hubctl(&arguments).await
    }

    async fn ask_with(&self, (certificate, key): &(PathBuf, PathBuf), more: &[&str]) -> Output {
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let mut arguments = vec!["--cert", &certificate, "--key", &key];
        arguments.extend(more);
        self.ask(&arguments).await
    }
}

#[tokio::test]
async fn a_certificate_of_the_named_ca_is_enough() {
    let scene = Scene::start(None);
    let ours = issue(&scene.folder, "client", &scene.authority);
    let output = scene.ask_with(&ours, &[]).await;
    assert!(output.status.success(), "{output:?}");

    let foreign = issue(&scene.folder, "foreign", &authority());
    for refused in [scene.ask_with(&foreign, &[]).await, scene.ask(&[]).await] {
        assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_beside_the_certificate() {
    let token = "0123456789abcdef0123456789abcdef";
    let scene = Scene::start(Some(token));
    let ours = issue(&scene.folder, "client", &scene.authority);
    assert_eq!(scene.ask_with(&ours, &[]).await.status.code(), Some(6));
    let file = scene.folder.join("token").display().to_string();
    assert!(scene.ask_with(&ours, &["--token-file", &file]).await.status.success());
}

#[tokio::test]
async fn a_hub_of_another_ca_is_not_trusted() {
    let scene = Scene::start(None);
    let ours = issue(&scene.folder, "client", &scene.authority);
    let other = scene.folder.write("other.pem", &authority().pem(), 0o600).display().to_string();
    let (certificate, key) = (ours.0.display().to_string(), ours.1.display().to_string());
    let output =
        hubctl(&["--url", &scene.url, "--ca", &other, "--cert", &certificate, "--key", &key, "status"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
