//! Sends the app's probes and hooks inside the pod.
//!
//! If calls to the app are intercepted, the kubelet's probes are intercepted too, and the kubelet has no certificate. So `attache inject`
//! directs the kubelet's probes to this port (15020), and writes the original probes into `ATTACHE_APP_PROBES`. Only these can be sent,
//! because every client that reaches the pod can use the port. Each is sent as the kubelet would send it, and succeeds by the kubelet's
//! rules ([`ask`], and docs/kubernetes.md). A probe that can't be sent fails as it would from the kubelet; attache still starts.

mod ask;
mod target;

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use attache_kubernetes::inject::PROBES_VARIABLE;
use attache_rpc::server::{Incoming, RpcServer, ServerConnectionPermit, ServerLimits};
use attache_tls::Connector;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore, task::spawn_local, time::timeout};

use crate::{
    bind::any_family,
    inherited::{InheritedSockets, duplicate},
    upgrade::KeyedSocket,
};
use ask::{HttpGet, ProbeAnswer, ProbeError};

/// The most lifecycle hooks that may run at once; a hook may take as long as the app needs.
const MAX_HOOKS: usize = 16;
/// A probe as it was in the pod.
#[derive(Debug, PartialEq)]
struct AppProbe {
    question: ProbeQuestion,
    /// `None` for a hook: the kubelet waits for it until the end of the pod's grace period.
    timeout: Option<Duration>,
}

#[derive(Debug, PartialEq)]
enum ProbeQuestion {
    Http(Box<HttpGet>),
    Hook(Box<HttpGet>),
    Tcp(SocketAddr),
    Grpc {
        address: SocketAddr,
        service: String,
    },
    /// It can't be sent, for this reason.
    Never(String),
}

/// All probes and hooks that can be requested.
struct Probes {
    all: HashMap<String, AppProbe>,
    tls: Connector,
    /// For hooks: the kubelet calls them only by HTTP/1.1 and without ALPN.
    hook_tls: Connector,
    hooks: Semaphore,
}

/// The port of the probes; it is bound, but not served yet.
pub(crate) struct ProbesSocket {
    socket: TcpListener,
    port: u16,
    probes: Probes,
}

/// Binds the port, if attache has the app's probes in its environment. The socket of the process before this one is used if there is one.
///
/// # Errors
/// The variable is not what `attache inject` writes, or the port is in use.
pub(crate) fn bind(handed: &mut InheritedSockets) -> Result<Option<ProbesSocket>, String> {
    let Ok(text) = std::env::var(PROBES_VARIABLE) else { return Ok(None) };
    let pod = std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok());
    let (port, all) = parse(&text, pod.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
        .ok_or_else(|| format!("{PROBES_VARIABLE} isn't what `attache inject` writes"))?;
    let wrong = |error: io::Error| format!("port {port} for the app's probes: {error}");
    let socket = match handed.take_one(&key(port)) {
        Some(given) => {
            let socket = std::net::TcpListener::from(given);
            socket.set_nonblocking(true).and(Ok(socket))
        }
        None => any_family(port),
    };
    let socket = socket.and_then(TcpListener::from_std).map_err(wrong)?;
    let unverified = |alpn: &[&[u8]]| Connector::unverified(alpn).map_err(|error| error.to_string());
    let (tls, hook_tls) = (unverified(&[b"h2", b"http/1.1"])?, unverified(&[])?);
    for (path, probe) in &all {
        if let ProbeQuestion::Never(why) = &probe.question {
            tracing::warn!("{path} always fails: {why}");
        }
    }
    Ok(Some(ProbesSocket {
        socket,
        port,
        probes: Probes { all, tls, hook_tls, hooks: Semaphore::new(MAX_HOOKS) },
    }))
}

/// The socket's name when it is handed to another process.
fn key(port: u16) -> String {
    format!("app probes {port}")
}

impl ProbesSocket {
    /// A handle of the socket for a later process.
    pub(crate) fn hold(&self) -> Option<KeyedSocket> {
        Some((key(self.port), duplicate(&self.socket)?))
    }

    /// Serves the probes until `succeeded` completes; then another process serves them.
    pub(crate) fn serve(self, succeeded: impl Future<Output = ()> + 'static) {
        tracing::info!("the app's probes are answered on port {}", self.port);
        // Every answer ends by itself: a probe has its timeout, and a hook has the pod's grace period.
        let limits = ServerLimits { connection_time: None, grace: None, ..ServerLimits::default() };
        let probes = Arc::new(self.probes);
        let answer = move |request, permit: Arc<ServerConnectionPermit>| {
            let probes = probes.clone();
            async move { Ok::<_, Infallible>(answer(&request, &probes, &permit).await) }
        };
        spawn_local(RpcServer::new("app probes", limits).run(self.socket, answer, succeeded));
    }
}

/// The address where attache serves the app's probes, if it does: attache must not forward requests to it.
pub(crate) fn served_at() -> Option<SocketAddr> {
    let all: Value = serde_json::from_str(&std::env::var(PROBES_VARIABLE).ok()?).ok()?;
    let port = all.get("port")?.as_u64()?.try_into().ok()?;
    Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
}

fn parse(text: &str, pod: IpAddr) -> Option<(u16, HashMap<String, AppProbe>)> {
    let all: Value = serde_json::from_str(text).ok()?;
    let port = all.get("port")?.as_u64()?.try_into().ok()?;
    let probes = all.get("probes")?.as_object()?.iter();
    Some((port, probes.map(|(path, probe)| (path.clone(), one(probe, pod))).collect()))
}

fn one(probe: &Value, pod: IpAddr) -> AppProbe {
    let seconds = probe.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(1).max(1);
    let (question, is_hook) = if let Some(hook) = probe.get("hook") {
        (http_get(hook, pod).map(|get| ProbeQuestion::Hook(Box::new(get))), true)
    } else if let Some(get) = probe.get("httpGet") {
        (http_get(get, pod).map(|get| ProbeQuestion::Http(Box::new(get))), false)
    } else if let Some(tcp) = probe.get("tcpSocket") {
        (address(tcp, pod).map(ProbeQuestion::Tcp), false)
    } else if let Some(grpc) = probe.get("grpc") {
        let service = grpc.get("service").and_then(Value::as_str).unwrap_or_default().to_owned();
        (address(grpc, pod).map(|address| ProbeQuestion::Grpc { address, service }), false)
    } else {
        (Err("it is of a kind that this attache doesn't know".to_owned()), false)
    };
    let timeout = (!is_hook).then_some(Duration::from_secs(seconds));
    AppProbe { question: question.unwrap_or_else(ProbeQuestion::Never), timeout }
}

fn address(question: &Value, pod: IpAddr) -> Result<SocketAddr, String> {
    let host = question.get("host").and_then(Value::as_str).filter(|host| !host.is_empty());
    let ip = match host {
        Some(host) => host.parse().map_err(|_| format!("its host `{host}` isn't an IP address"))?,
        None => pod,
    };
    let port = question.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    Ok(SocketAddr::new(ip, port.ok_or("it has no port")?))
}

fn http_get(question: &Value, pod: IpAddr) -> Result<HttpGet, String> {
    let address = address(question, pod)?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut headers = HeaderMap::new();
    for header in question.get("httpHeaders").and_then(Value::as_array).into_iter().flatten() {
        let (name, value) =
            (text(header, "name").unwrap_or_default(), text(header, "value").unwrap_or_default());
        let read = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(HeaderValue::from_bytes(value.trim().as_bytes()).ok());
        let (name, value) =
            read.ok_or_else(|| format!("its header `{}` can't be sent", name.escape_debug()))?;
        headers.append(name, value);
    }
    let place = target::ProbeTarget {
        https: text(question, "scheme").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: address.ip().to_string(),
        port: address.port(),
        written: true,
        target: target::of_path(&text(question, "path").unwrap_or_default()),
    };
    Ok(HttpGet { ip: address.ip(), place, headers })
}

async fn answer(
    request: &Request<Incoming>,
    probes: &Probes,
    permit: &ServerConnectionPermit,
) -> Response<Full<Bytes>> {
    let said = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    let Some(probe) = probes.all.get(request.uri().path()) else {
        return said(StatusCode::NOT_FOUND, "the app has no such probe\n".to_owned());
    };
    // The kubelet's own user agent, with its version.
    let agent =
        request.headers().get(header::USER_AGENT).filter(|agent| agent.as_bytes().starts_with(b"kube-"));
    let agent = agent.cloned().unwrap_or(HeaderValue::from_static("kube-probe/attache"));
    let asked = ask(&probe.question, &agent, probes, permit);
    let asked = match probe.timeout {
        Some(limit) => timeout(limit, asked).await,
        None => Ok(asked.await),
    };
    match asked {
        Ok(Ok(ProbeAnswer::Well)) => said(StatusCode::OK, "ok\n".to_owned()),
        // `kubectl describe` shows the app's response as it is passed on here.
        Ok(Ok(ProbeAnswer::Status(status))) if status.as_u16() >= 400 => {
            said(status, format!("the app answered {status}\n"))
        }
        Ok(Ok(ProbeAnswer::Status(status))) => {
            said(StatusCode::SERVICE_UNAVAILABLE, format!("the app answered {status}\n"))
        }
        Ok(Err(error)) => said(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        Err(_) => said(
            StatusCode::GATEWAY_TIMEOUT,
            format!("no answer within {:?}\n", probe.timeout.unwrap_or_default()),
        ),
    }
}

async fn ask(
    question: &ProbeQuestion,
    agent: &HeaderValue,
    probes: &Probes,
    permit: &ServerConnectionPermit,
) -> Result<ProbeAnswer, ProbeError> {
    match question {
        ProbeQuestion::Http(get) => get.probe(agent, &probes.tls).await,
        ProbeQuestion::Hook(get) => {
            let _running = probes.hooks.try_acquire().map_err(|_| "too many hooks are called at once")?;
            permit.long_lived();
            get.call(agent, &probes.hook_tls).await
        }
        ProbeQuestion::Tcp(address) => ask::tcp(*address).await,
        ProbeQuestion::Grpc { address, service } => ask::grpc(*address, service, agent).await,
        ProbeQuestion::Never(why) => Err(why.clone().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_of_a_pod_are_read() {
        let text = r#"{"port":15020,"probes":{"/app-probe/web/liveness":{"httpGet":{"path":"live","port":8080,"httpHeaders":[{"name":"X-A","value":"b"},{"name":"X-A","value":"gr\u00fc\u00df"}]},"timeoutSeconds":2},
            "/app-probe/db/readiness":{"tcpSocket":{"port":5432},"timeoutSeconds":1},
            "/app-probe/rpc/startup":{"grpc":{"port":9090,"service":"s"},"timeoutSeconds":1},
            "/app-hook/web/preStop":{"hook":{"path":"/stop","port":8443,"scheme":"HTTPS"}}}}"#;
        let pod = IpAddr::from([10, 0, 0, 7]);
        let (port, probes) = parse(text, pod).unwrap();
        assert_eq!(port, 15020);
        let ProbeQuestion::Http(get) = &probes["/app-probe/web/liveness"].question else {
            panic!("{probes:?}")
        };
        assert_eq!((get.place.url().as_str(), get.ip), ("http://10.0.0.7:8080/live", pod));
        let values: Vec<&[u8]> = get.headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, ["b".as_bytes(), "gr\u{fc}\u{df}".as_bytes()]);
        assert_eq!(probes["/app-probe/web/liveness"].timeout, Some(Duration::from_secs(2)));
        assert_eq!(
            probes["/app-probe/db/readiness"].question,
            ProbeQuestion::Tcp(SocketAddr::new(pod, 5432))
        );
        let service = "s".to_owned();
        assert_eq!(
            probes["/app-probe/rpc/startup"].question,
            ProbeQuestion::Grpc { address: SocketAddr::new(pod, 9090), service }
        );
        let ProbeQuestion::Hook(hook) = &probes["/app-hook/web/preStop"].question else {
            panic!("{probes:?}")
        };
        assert_eq!(hook.place.url(), "https://10.0.0.7:8443/stop");
        assert_eq!(probes["/app-hook/web/preStop"].timeout, None);
    }

    #[test]
    fn a_probe_that_can_not_be_sent_fails_and_attache_still_starts() {
        for question in [
            "{}",
            r#"{"httpGet":{"path":"/"}}"#,
            r#"{"httpGet":{"port":80,"httpHeaders":[{"name":"a b","value":"c"}]}}"#,
            r#"{"httpGet":{"port":80,"httpHeaders":[{"name":"a","value":"\u0001"}]}}"#,
            r#"{"tcpSocket":{"port":70000}}"#,
            r#"{"grpc":{"port":1,"host":"x"}}"#,
        ] {
            let text = format!(r#"{{"port":1,"probes":{{"/x":{question}}}}}"#);
            let (_, probes) = parse(&text, IpAddr::from([10, 0, 0, 7])).unwrap();
            assert!(matches!(probes["/x"].question, ProbeQuestion::Never(_)), "{question}: {probes:?}");
        }
        assert!(parse("[]", IpAddr::from([10, 0, 0, 7])).is_none());
    }
}
