//! Listeners with real sockets: who may connect, how many, and for how long.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hub_daemon::datapath_view::{ChangeEvent, EventView};
use hub_daemon::inputs::rest::STREAMS;
use hub_daemon::inputs::server::{self, CONNECTIONS, HEADER_TIME, ListenError, TcpOptions, TlsOptions};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{Fake, change};

/// A folder that goes away.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hub-api-{}", ulid::Ulid::new()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The stand-in on a unix socket.
pub(crate) struct Served {
    pub(crate) fake: Fake,
    pub(crate) socket: PathBuf,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
    _folder: Folder,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::of(Fake::start())
    }

    /// A hub on a socket.
    pub(crate) fn of(fake: Fake) -> Self {
        let folder = Folder::new();
        let socket = folder.join("hubd.sock");
        let (closing, closed) = watch::channel(false);
        let listener = server::bind_unix(&socket).unwrap();
        let task = tokio::spawn(server::serve(listener, fake.router.clone(), closed));
        Self { fake, socket, closing, task, _folder: folder }
    }
}

async fn connect(socket: &Path) -> SendRequest<Body> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "localhost").body(Body::empty()).unwrap()
}

/// Reads until the other end closes.
async fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    drop(stream.read_to_end(&mut bytes).await);
    bytes
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group() {
    let served = Served::start();
    let mode = std::fs::metadata(&served.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut sender = connect(&served.socket).await;
    for _ in 0..3 {
        let response = sender.send_request(get("/v1/healthz")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
        sender.ready().await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_is_replaced_only_when_nobody_listens() {
    let served = Served::start();
    assert!(matches!(server::bind_unix(&served.socket), Err(ListenError::Taken(_))));

    let folder = Folder::new();
    let stale = folder.join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(std::fs::metadata(&stale).unwrap().file_type().is_socket());
    server::bind_unix(&stale).unwrap();

    let file = folder.write("file", "", 0o600);
    assert!(matches!(server::bind_unix(&file), Err(ListenError::NotSocket(_))));
    assert!(matches!(server::bind_unix(&folder.join("no/such/folder")), Err(ListenError::Io { .. })));
}

#[tokio::test]
async fn closing_ends_idle_connections_and_streams_and_removes_the_socket() {
    let served = Served::start();
    let _idle = connect(&served.socket).await;
    let mut reader = connect(&served.socket).await;
    let stream = reader.send_request(get("/events")).await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    let begin = Instant::now();
    served.closing.send(true).unwrap();
    stream.into_body().collect().await.unwrap();
    served.task.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(!served.socket.exists());
}

#[tokio::test]
async fn closing_leaves_the_socket_of_a_successor() {
    let served = Served::start();
    std::fs::remove_file(&served.socket).unwrap();
    let _successor = server::bind_unix(&served.socket).unwrap();
    served.closing.send(true).unwrap();
    served.task.await.unwrap();
    assert!(served.socket.exists());
}

#[tokio::test]
async fn a_header_that_does_not_come_is_given_up() {
    let served = Served::start();
    let begin = Instant::now();
    let mut silent = UnixStream::connect(&served.socket).await.unwrap();
    let mut slow = UnixStream::connect(&served.socket).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let (_, _) = tokio::join!(read_all(&mut silent), read_all(&mut slow));
    let taken = begin.elapsed();
    assert!(taken + Duration::from_millis(100) >= HEADER_TIME, "{taken:?}");
    assert!(taken < HEADER_TIME + Duration::from_secs(2), "{taken:?}");
}

#[tokio::test]
async fn a_connection_too_many_pushes_out_the_oldest_idle_one() {
    let served = Served::start();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(UnixStream::connect(&served.socket).await.unwrap());
    }
    let mut sender = connect(&served.socket).await;
    assert_eq!(sender.send_request(get("/healthz")).await.unwrap().status(), StatusCode::OK);
    let pushed = tokio::time::timeout(Duration::from_secs(1), read_all(&mut idle[0])).await;
    assert_eq!(pushed.unwrap(), b"");
    // The second one stays.
    idle[1].write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut idle[1]).await.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn who_says_nothing_cannot_keep_others_out() {
    let served = Served::start();
    let socket = served.socket.clone();
    let _silent = tokio::task::spawn_blocking(move || {
        let connections = (0..1_000).map(|_| StdUnixStream::connect(&socket).unwrap());
        connections.collect::<Vec<_>>()
    })
    .await
    .unwrap();
    let mut times = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        let mut sender = connect(&served.socket).await;
        assert_eq!(sender.send_request(get("/healthz")).await.unwrap().status(), StatusCode::OK);
        times.push(begin.elapsed());
    }
    times.sort();
    assert!(times[48] < Duration::from_millis(100), "{:?}", times[48]);
}

#[tokio::test]
async fn connections_that_are_all_busy_refuse_one_more() {
    let served = Served::start();
    // A request whose body does not come keeps its connection busy.
    let mut busy = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = UnixStream::connect(&served.socket).await.unwrap();
        let head = b"POST /personas HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut answer = [0; 25];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        busy.push(stream);
    }
    let mut refused = UnixStream::connect(&served.socket).await.unwrap();
    let _unsent = refused.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(read_all(&mut refused).await, b"");
    // One that ends makes room.
    busy[0].write_all(b"{\"x\": 1}\n").await.unwrap();
    let mut answer = [0; 12];
    busy[0].read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 422");
    let mut sender = connect(&served.socket).await;
    assert_eq!(sender.send_request(get("/healthz")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn who_does_not_read_is_given_up() {
    let served = Served::start();
    let mut deaf = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = UnixStream::connect(&served.socket).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        deaf.push(stream);
    }
    let events = served.fake.hub.events.clone();
    while events.receiver_count() < STREAMS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    while events.receiver_count() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} streams are left", events.receiver_count());
        for number in 0..8 {
            drop(events.send(long_change(number)));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut sender = connect(&served.socket).await;
    assert_eq!(sender.send_request(get("/events")).await.unwrap().status(), StatusCode::OK);
}

/// An event that fills a socket's buffer soon.
fn long_change(number: u32) -> EventView {
    match change(number) {
        EventView::Change(change) => {
            EventView::Change(ChangeEvent { message: "x".repeat(16 * 1_024), ..change })
        }
        other @ (EventView::Packet(_) | EventView::Alert(_)) => other,
    }
}

#[tokio::test]
async fn malformed_requests_leave_the_server_standing() {
    let served = Served::start();
    let socket = served.socket.clone();
    tokio::task::spawn_blocking(move || {
        let heads: [&[u8]; 6] = [
            b"\0\0\0\0\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET\r\n\r\n",
            b"POST /personas HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST /personas HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
            b"GET /personas/%zz?%%% HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        ];
        for round in 0..600 {
            let mut stream = StdUnixStream::connect(&socket).unwrap();
            drop(stream.write_all(heads[round % heads.len()]));
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer));
        }
        let mut stream = StdUnixStream::connect(&socket).unwrap();
        drop(stream.write_all(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 17)).as_bytes()));
    })
    .await
    .unwrap();
    let mut sender = connect(&served.socket).await;
    assert_eq!(sender.send_request(get("/healthz")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn tcp_is_never_open_to_everybody() {
    let folder = Folder::new();
    let token_file = folder.write("token", &"t".repeat(32), 0o600);
    let (local, any) = ("127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap());
    let tls = |client_ca| TlsOptions { certificate: folder.join("c"), key: folder.join("k"), client_ca };
    let bind = |address, token_file, tls| server::bind_tcp(&TcpOptions { address, token_file, tls });
    assert!(matches!(bind(local, None, None), Err(ListenError::Open(_))));
    assert!(matches!(bind(local, None, Some(tls(None))), Err(ListenError::Open(_))));
    assert!(matches!(bind(any, Some(token_file.clone()), None), Err(ListenError::ClearText(_))));
    assert!(matches!(bind(local, Some(token_file.clone()), Some(tls(None))), Err(ListenError::Tls { .. })));
    bind(local, Some(token_file), None).unwrap();

    for (name, text, mode) in
        [("short", "secret", 0o600), ("open", "ttttttttttttttttttttttttttttttttt", 0o644)]
    {
        let file = folder.write(name, text, mode);
        assert!(matches!(bind(local, Some(file), None), Err(ListenError::Token { .. })), "{name}");
    }
    assert!(matches!(bind(local, Some(folder.join("none")), None), Err(ListenError::Io { .. })));
}

#[tokio::test]
async fn a_token_is_asked_for_on_every_route() {
    let folder = Folder::new();
    let token = "0123456789abcdef0123456789abcdef";
    let token_file = folder.write("token", &format!("{token}\n"), 0o640);
    let fake = Fake::start();
    let (closing, closed) = watch::channel(false);
    let options =
        TcpOptions { address: "127.0.0.1:0".parse().unwrap(), token_file: Some(token_file), tls: None };
    let listener = server::bind_tcp(&options).unwrap();
    let address = listener.address().unwrap();
    let task = tokio::spawn(server::serve(listener, fake.router.clone(), closed));
    let ask = async |path: &str, shown: Option<&str>| {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = get(path);
        if let Some(shown) = shown {
            request.headers_mut().insert("authorization", shown.parse().unwrap());
        }
        sender.send_request(request).await.unwrap()
    };
    for path in ["/healthz", "/v1/personas", "/openapi.json", "/docs/", "/nothing"] {
        for shown in
            [None, Some("Bearer wrong"), Some("Basic abc"), Some("Bearer "), Some("Bearer 0123456789abcdef")]
        {
            let response = ask(path, shown).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {shown:?}");
            assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
    assert_eq!(ask("/healthz", Some(&format!("Bearer {token}"))).await.status(), StatusCode::OK);
    assert_eq!(ask("/healthz", Some(&format!("bearer {token}"))).await.status(), StatusCode::OK);
    closing.send(true).unwrap();
    task.await.unwrap();
}
