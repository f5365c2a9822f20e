//! The task against a test's API server: TLS, and one scripted answer for each request. [`recorded`] replays the
//! answers of a real one; other objects have the form in which API servers of Kubernetes 1.3x send them.

mod recorded;

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use attache_config::model::{
    Address, EndpointSource, EndpointTarget, KubernetesPort, KubernetesService, Upstream,
};
use attache_telemetry::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{super::merge::Merge, *};
use crate::{SharedUpstream, test_support::upstream};

const LIST: &str = include_str!("../testdata/list.json");
const RESTART: &str = include_str!("../testdata/rolling-restart.jsonl");
const GONE: &str = include_str!("../testdata/recorded/gone.jsonl");
const FORBIDDEN: &str = include_str!("../testdata/recorded/forbidden.json");
const EMPTY: &str = r#"{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"9"},"items":[]}"#;

/// One answer: its status and fields, the bytes that come at once, and those that come later; without the last part the
/// answer ends.
struct ScriptedResponse(&'static str, String, Option<mpsc::UnboundedReceiver<String>>);

/// The API server, and the task that asks it.
struct Cluster {
    shared: Arc<SharedUpstream>,
    asked: Arc<Mutex<Vec<String>>>,
    replies: mpsc::UnboundedSender<ScriptedResponse>,
    untried: watch::Receiver<usize>,
    account: tempfile::TempDir,
    api: KubernetesApi,
    _tasks: JoinSet<()>,
}

impl Cluster {
    async fn new(port: KubernetesPort) -> Self {
        let account = tempfile::tempdir().unwrap();
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(account.path().join("ca.crt"), key.cert.pem()).unwrap();
        fs::write(account.path().join("token"), "first\n").unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = KubernetesApi::at(listener.local_addr().unwrap().port(), account.path());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (replies, script) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), asked.clone(), script));

        let service = KubernetesService { name: "orders".into(), namespace: "shop".into(), port };
        let source = EndpointSource::new(EndpointTarget::Kubernetes(service.clone()));
        let config = Upstream { address: Address::Endpoints(vec![source.clone()]), ..upstream("orders") };
        let shared = Arc::new(SharedUpstream::new(Arc::new(config)));
        let merge = Arc::new(Mutex::new(Merge::new(shared.clone(), vec![source])));
        lock(&merge).publish();
        let (sender, untried) = watch::channel(1);
        let mut task = KubernetesTask::new(merge, 0, service, sender);
        let ms = Duration::from_millis;
        task.pace = RequestPace { first: ms(20), longest: ms(160), publish: ms(10) };
        task.wanted.prefer_v6 = false;
        let at = api.clone();
        tasks.spawn(task.run_with(move || Ok(at.clone())));
        Self { shared, asked, replies, untried, account, api, _tasks: tasks }
    }

    fn reply(&self, status: &'static str, text: impl Into<String>) {
        self.replies.send(ScriptedResponse(status, text.into(), None)).unwrap();
    }

    /// A watch that stays open: the task receives what a test sends into it.
    fn watched(&self, text: &str) -> mpsc::UnboundedSender<String> {
        let (sender, later) = mpsc::unbounded_channel();
        self.replies.send(ScriptedResponse("200 OK", text.into(), Some(later))).unwrap();
        sender
    }

    fn endpoints(&self) -> Vec<String> {
        self.shared.endpoints.load().endpoints.iter().map(|e| e.label.to_string()).collect()
    }

    fn failure(&self) -> Option<String> {
        self.shared.lookups.all().first()?.failure.clone().map(|(_, detail)| detail)
    }

    /// Waits until the endpoints are these.
    async fn until(&self, expected: &[&str]) {
        let reached = timeout(Duration::from_secs(20), async {
            while self.endpoints() != expected {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let reached = reached.await;
        assert!(
            reached.is_ok(),
            "{:?}, not {expected:?}; {:?}; {:?}",
            self.endpoints(),
            self.failure(),
            self.asked()
        );
    }

    async fn until_failure(&self, words: &str) {
        let reached = timeout(Duration::from_secs(20), async {
            while !self.failure().is_some_and(|detail| detail.contains(words)) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(reached.await.is_ok(), "{:?}, not `{words}`; {:?}", self.failure(), self.asked());
    }

    async fn until_asked(&self, times: usize) {
        let reached = timeout(Duration::from_secs(20), async {
            while self.asked.lock().unwrap().len() < times {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(reached.await.is_ok(), "{:?}", self.asked());
    }

    /// `list`, or `watch VERSION`, of every request, with its token.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    asked: Arc<Mutex<Vec<String>>>,
    mut script: mpsc::UnboundedReceiver<ScriptedResponse>,
) {
    let mut tasks = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let Ok(mut io) = tls.accept(tcp).await else { continue };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = io.read_u8().await else { break };
            head.push(byte);
        }
        asked.lock().unwrap().push(describe(&String::from_utf8(head).unwrap()));
        let Some(ScriptedResponse(status, text, later)) = script.recv().await else { return };
        tasks.spawn(async move {
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            io.write_all(head.as_bytes()).await.unwrap();
            // In pieces, as they come from a network.
            for piece in text.as_bytes().chunks(700) {
                write_chunk(&mut io, piece).await;
            }
            if let Some(mut later) = later {
                while let Some(text) = later.recv().await {
                    write_chunk(&mut io, text.as_bytes()).await;
                }
            }
            let _ = io.write_all(b"0\r\n\r\n").await;
            let _ = io.shutdown().await;
        });
    }
}

async fn write_chunk(io: &mut (impl AsyncWriteExt + Unpin), piece: &[u8]) {
    let _ = io.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await;
    let _ = io.write_all(piece).await;
    let _ = io.write_all(b"\r\n").await;
    let _ = io.flush().await;
}

fn describe(head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap();
    let (path, query) = path.split_once('?').unwrap();
    assert_eq!(path, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices");
    assert!(query.contains("labelSelector=kubernetes.io%2Fservice-name%3Dorders"));
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
    let kind = if value("watch").is_some() { "watch" } else { "list" };
    assert_eq!(kind == "watch", value("allowWatchBookmarks").is_some() && value("timeoutSeconds").is_some());
    format!("{kind} {} {token}", value("resourceVersion").unwrap_or("newest"))
}

fn http() -> KubernetesPort {
    KubernetesPort::Name("http".into())
}

/// The lines of the rolling restart, one by one.
fn restart() -> Vec<String> {
    RESTART.lines().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_rolling_restart_is_followed_and_the_watch_goes_on_at_the_bookmark() {
    let mut cluster = Cluster::new(http()).await;
    assert_eq!(cluster.shared.endpoints.load().failure, Some(Reason::DiscoveryPending));
    cluster.reply("200 OK", LIST);
    let events = cluster.watched("");
    cluster.until(&["10.244.1.17:8080", "10.244.2.23:8080"]).await;
    cluster.untried.wait_for(|untried| *untried == 0).await.unwrap();
    let zones: Vec<_> = cluster.shared.endpoints.load().endpoints.iter().map(|e| e.zone.clone()).collect();
    assert_eq!(zones, [Some("eu-west-1a".into()), Some("eu-west-1b".into())]);
    let old = cluster.shared.endpoints.load().endpoints[0].clone();
    let restart = restart();
    events.send(restart[0].clone() + &restart[1]).unwrap();
    cluster.until(&["10.244.1.17:8080", "10.244.1.18:8080", "10.244.2.23:8080"]).await;
    assert!(!old.removed.load(std::sync::atomic::Ordering::Relaxed));
    // It is terminating and serves its running requests: it gets no new work.
    events.send(restart[2].clone()).unwrap();
    cluster.until(&["10.244.1.18:8080", "10.244.2.23:8080"]).await;
    assert!(old.removed.load(std::sync::atomic::Ordering::Relaxed));
    events.send(restart[3].clone()).unwrap();
    sleep(Duration::from_millis(50)).await;
    drop(events);
    let _held = cluster.watched("");
    cluster.until_asked(3).await;
    assert_eq!(cluster.asked(), ["list 0 first", "watch 48211 first", "watch 48260 first"]);
}

#[tokio::test]
async fn what_was_missed_is_listed_again_from_the_newest() {
    let cluster = Cluster::new(http()).await;
    cluster.reply("200 OK", LIST);
    cluster.reply("200 OK", GONE);
    cluster.reply("200 OK", EMPTY);
    let _held = cluster.watched("");
    cluster.until(&["10.244.1.17:8080", "10.244.2.23:8080"]).await;
    cluster.until(&[]).await;
    assert_eq!(cluster.shared.endpoints.load().failure, None, "the API server says that there are none");
    cluster.until_asked(4).await;
    assert_eq!(cluster.asked(), ["list 0 first", "watch 48211 first", "list newest first", "watch 9 first"]);
}

#[tokio::test]
async fn a_410_and_an_error_of_another_kind_list_again_too() {
    let cluster = Cluster::new(http()).await;
    for (status, text) in [
        ("410 Gone", GONE),
        (
            "504 Gateway Timeout",
            r#"{"kind":"Status","message":"Timeout: Too large resource version: 48211, current: 7"}"#,
        ),
        ("200 OK", "{\"type\":\"ERROR\",\"object\":{\"code\":500,\"message\":\"etcd\"}}\n"),
        ("200 OK", "no JSON\n"),
        ("200 OK", "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"x\"}}}\n"),
    ] {
        cluster.reply("200 OK", LIST);
        cluster.reply(status, text);
    }
    cluster.until_asked(11).await;
    let asked = cluster.asked();
    assert!(asked.iter().step_by(2).skip(1).all(|asked| asked == "list newest first"), "{asked:?}");
    cluster.until(&["10.244.1.17:8080", "10.244.2.23:8080"]).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_the_last_good_endpoints_serve_and_each_token_is_read_anew() {
    let cluster = Cluster::new(http()).await;
    cluster.reply("200 OK", LIST);
    let events = cluster.watched("");
    cluster.until(&["10.244.1.17:8080", "10.244.2.23:8080"]).await;
    let token = cluster.account.path().join("token");
    fs::remove_file(&token).unwrap();
    drop(events);
    cluster.until_failure("token must be mounted").await;
    fs::write(&token, "").unwrap();
    cluster.until_failure("holds no token").await;
    fs::write(&token, "two\nlines").unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.endpoints().len(), 2);
    assert_eq!(cluster.shared.endpoints.load().failure, Some(Reason::DiscoveryFailed));
    fs::write(&token, "second").unwrap();
    let _held = cluster.watched("");
    cluster.until_asked(3).await;
    assert_eq!(cluster.asked().last().unwrap(), "watch 48211 second", "the watch goes on where it was");
    timeout(Duration::from_secs(5), async {
        while cluster.failure().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    // The trusted authority is missing, so no request is made.
    fs::write(cluster.account.path().join("ca.crt"), "").unwrap();
    let refused = cluster.api.get("/").await.unwrap_err();
    assert!(matches!(refused, ApiError::Away { ref detail, .. } if detail.contains("ca.crt")), "{refused:?}");
}

#[tokio::test]
async fn the_message_of_the_api_server_is_reported_and_retry_after_is_obeyed() {
    let mut cluster = Cluster::new(http()).await;
    cluster.reply("403 Forbidden", FORBIDDEN);
    cluster.until_failure("cannot list resource").await;
    let said = cluster.failure().unwrap();
    assert!(said.contains("answered 403") && said.contains("`list` and `watch`"), "{said}");
    cluster.untried.wait_for(|untried| *untried == 0).await.unwrap();
    cluster.reply("429 Too Many Requests\r\nretry-after: 1", "busy");
    cluster.until_failure("answered 429").await;
    let before = cluster.asked().len();
    sleep(Duration::from_millis(700)).await;
    assert_eq!(cluster.asked().len(), before);
    cluster.reply("401 Unauthorized", include_str!("../testdata/recorded/unauthorized.json"));
    cluster.until_failure("answered 401: Unauthorized; is the service account's token mounted").await;
}

#[tokio::test]
async fn a_server_that_ends_every_watch_at_once_is_asked_less_and_less() {
    let cluster = Cluster::new(http()).await;
    cluster.reply("200 OK", LIST);
    for _ in 0..100 {
        cluster.reply("200 OK", "");
    }
    sleep(Duration::from_millis(1500)).await;
    // 20, 40, 80, 160, 160 … ms, up to a fifth less.
    let times = cluster.asked().len();
    assert!((4..=17).contains(&times), "{times}");
}

#[tokio::test]
async fn a_slice_or_an_event_that_cannot_be_read_changes_nothing_else() {
    let cluster = Cluster::new(http()).await;
    let broken =
        LIST.replacen("\"items\":[", "\"items\":[{\"metadata\":{\"name\":\"broken\"},\"ports\":7},", 1);
    cluster.reply("200 OK", broken);
    let events = cluster.watched("");
    cluster.until(&["10.244.1.17:8080", "10.244.2.23:8080"]).await;
    let restart = restart();
    events.send(restart[2].replacen("\"port\":8080", "\"port\":\"8080\"", 1)).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.endpoints().len(), 2);
    events.send(restart[2].clone()).unwrap();
    cluster.until(&["10.244.1.18:8080", "10.244.2.23:8080"]).await;
    assert_eq!(cluster.asked().len(), 2, "the watch went on");
}

#[tokio::test]
async fn a_flood_of_events_is_published_now_and_then() {
    let cluster = Cluster::new(http()).await;
    cluster.reply("200 OK", LIST);
    let events = cluster.watched("");
    cluster.until(&["10.244.1.17:8080", "10.244.2.23:8080"]).await;
    let generation = cluster.shared.endpoints.load().generation;
    let restart = restart();
    let begun = Instant::now();
    for turn in 0..400 {
        events.send(restart[turn % 2 + 1].clone()).unwrap();
    }
    events.send(restart[4].clone()).unwrap();
    cluster.until(&["10.244.1.18:8080", "10.244.2.23:8080"]).await;
    let most = begun.elapsed().as_millis() / 10 + 2;
    let published = u128::from(cluster.shared.endpoints.load().generation - generation);
    assert!(published <= most, "{published} sets, {most} at most");
}

#[tokio::test]
async fn a_missing_port_fails_with_a_list_of_the_ports_that_exist() {
    let cluster = Cluster::new(KubernetesPort::Number(80)).await;
    cluster.reply("200 OK", LIST);
    let _held = cluster.watched("");
    cluster.until_failure("http (8080), metrics (9090)").await;
    assert_eq!(cluster.shared.endpoints.load().failure, Some(Reason::DiscoveryFailed));
}
