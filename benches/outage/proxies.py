"""The proxies of the tables, each with its defaults, in front of ten addresses or one DNS name.

attache as `attache run` has it. nginx and HAProxy with an upstream of ten servers; HAProxy with `option redispatch` and `retries 3`. Envoy as a sidecar of Istio has it: two retries
on `connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes` (503) and on `reset-before-request`, on another host each, and no outlier detection.
"""
import asyncio, json, os, re, shutil, subprocess, urllib.request

from callers import LISTEN
from pods import DIR, HOSTS, PORT

ATTACHE, ENVOY = os.environ.get("ATTACHE", "target/release/attache"), os.environ.get("ENVOY", "envoy")
METRICS, ADMIN, DNS = 9002, 9003, 5353
# A folder for attache's log and its access log of failures.
TRACE = os.environ.get("TRACE")
NAME = "svc.test"


def present():
    return [proxy for proxy in ("attache", "nginx", "haproxy", "envoy") if proxy == "attache" or shutil.which(ENVOY if proxy == "envoy" else proxy)]


def can(proxy, protocol, secure=False, named=False):
    """Whether the proxy supports it in the setup used here."""
    kind = protocol.split()[0]
    if proxy == "nginx":
        return kind == "http1" and not named
    if proxy == "haproxy":
        return kind in ("http1", "websocket") or (kind == "opaque" and not secure)
    return True


def attache(protocol, secure, named):
    kind = protocol.split()[0]
    scheme = ("tls" if secure else "tcp") if kind in ("opaque", "connect") else "https" if secure else "http" if kind in ("http1", "websocket") else "h2c"
    addresses = ", ".join(f'"{scheme}://{host}:{PORT}"' for host in ([NAME] if named else HOSTS))
    # HTTP/1 rows use HTTP/1 to the pods too, where ALPN would choose otherwise.
    spoken = ", protocol: http1" if secure and kind in ("http1", "websocket") else ""
    trust = f", tls: {{ ca: {DIR}/good-ca.pem, name: svc, certificate: {DIR}/client.pem, key: {DIR}/client.key }}" if secure else ""
    route = "routes: [{ match: { methods: CONNECT }, to: svc }]" if kind == "connect" else "to: svc"
    speaks = "protocol: tcp, " if kind == "opaque" else ""
    log = f"access_log: {{ to: {TRACE}/access.log, format: json, filter: {{ errors: true }} }}\n" if TRACE else ""
    dns = f"dns: {{ servers: 127.0.0.1:{DNS}, search: [example], ndots: 1, family: v4-only }}\n" if named else ""
    return (f"{log}{dns}admin: 127.0.0.1:{ADMIN}\nmetrics: 127.0.0.1:{METRICS}\nlisteners: {{ l: {{ bind: 127.0.0.1:{LISTEN}, {speaks}{route} }} }}\n"
            f"upstreams: {{ svc: {{ address: [{addresses}]{spoken}{trust} }} }}\n")


def haproxy(protocol, secure, named):
    options = f" ssl verify required ca-file {DIR}/good-ca.pem verifyhost svc crt {DIR}/both.pem" if secure else ""
    servers = "\n".join(f" server s{n} {host}:{PORT}{options}" for n, host in enumerate(HOSTS))
    if named:
        servers = f" server-template s 20 {NAME}:{PORT}{options} resolvers dns init-addr none"
    mode = "tcp" if protocol.startswith("opaque") else "http"
    return (f"resolvers dns\n nameserver one 127.0.0.1:{DNS}\n hold valid 1s\n accepted_payload_size 4096\n"
            f"defaults\n mode {mode}\n option redispatch\n retries 3\n timeout connect 1s\n timeout client 15s\n timeout server 15s\n timeout tunnel 1h\n"
            f"frontend f\n bind 127.0.0.1:{LISTEN}\n default_backend b\nbackend b\n{servers}\n")


def nginx(secure):
    tls_lines = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {DIR}/good-ca.pem; proxy_ssl_name svc; proxy_ssl_certificate {DIR}/client.pem; " \
                f"proxy_ssl_certificate_key {DIR}/client.key;" if secure else ""
    return (f"daemon off; pid {DIR}/nginx.pid; error_log {DIR}/error.log; worker_processes 2; events {{ worker_connections 4096; }}\n"
            f"http {{ access_log off; upstream svc {{ keepalive 32; {' '.join(f'server {host}:{PORT};' for host in HOSTS)} }}\n"
            f"server {{ listen 127.0.0.1:{LISTEN}; location / {{ proxy_pass {'https' if secure else 'http'}://svc; proxy_http_version 1.1; "
            f"proxy_set_header Connection ''; proxy_connect_timeout 1s; {tls_lines} }} }} }}\n")


def envoy(protocol, secure, named):
    kind = protocol.split()[0]
    typed = lambda name, **fields: {"@type": f"type.googleapis.com/{name}", **fields}
    address = lambda host: {"endpoint": {"address": {"socket_address": {"address": host, "port_value": PORT}}}}
    cluster = {"name": "svc", "type": "STRICT_DNS" if named else "STATIC", "connect_timeout": "1s", "lb_policy": "LEAST_REQUEST",
               "load_assignment": {"cluster_name": "svc", "endpoints": [{"lb_endpoints": [address(host) for host in ([NAME] if named else HOSTS)]}]}}
    if named:
        resolver = {"resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": DNS}}], "dns_resolver_options": {"no_default_search_domain": True}}
        cluster |= {"dns_lookup_family": "V4_ONLY", "typed_dns_resolver_config": {"name": "cares", "typed_config": typed(
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", **resolver)}}
    if kind in ("http2", "grpc"):
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})}
    if secure:
        context = {"tls_certificates": [{"certificate_chain": {"filename": f"{DIR}/client.pem"}, "private_key": {"filename": f"{DIR}/client.key"}}],
                   "validation_context": {"trusted_ca": {"filename": f"{DIR}/good-ca.pem"},
                                          "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "svc"}}]}}
        if kind in ("http2", "grpc"):
            context["alpn_protocols"] = ["h2"]
        cluster["transport_socket"] = {"name": "tls", "typed_config": typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context=context)}
    retry = {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes,reset-before-request", "retriable_status_codes": [503], "num_retries": 2,
             "retry_host_predicate": [{"name": "previous", "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")}],
             "host_selection_retry_max_attempts": 5}
    action = {"cluster": "svc", "timeout": "0s", "retry_policy": retry}
    if kind == "connect":
        action["upgrade_configs"] = [{"upgrade_type": "CONNECT", "connect_config": {}}]
    match = {"connect_matcher": {}} if kind == "connect" else {"prefix": "/"}
    manager = typed("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="l",
                    upgrade_configs=[{"upgrade_type": "websocket"}] + ([{"upgrade_type": "CONNECT"}] if kind == "connect" else []),
                    http_filters=[{"name": "router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router")}],
                    route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": match, "route": action}]}]})
    if kind == "opaque":
        manager = typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="l", cluster="svc", max_connect_attempts=3)
    listener = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": LISTEN}}, "filter_chains": [{"filters": [{"name": "l", "typed_config": manager}]}]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def start(proxy, protocol, secure=False, named=False):
    """Starts it in front of the ten addresses or the name."""
    text = nginx(secure) if proxy == "nginx" else {"attache": attache, "haproxy": haproxy, "envoy": envoy}[proxy](protocol, secure, named)
    path = f"{DIR}/{proxy}.{'json' if proxy == 'envoy' else 'conf'}"
    open(path, "w").write(text)
    if secure:
        open(f"{DIR}/both.pem", "w").write(open(f"{DIR}/client.pem").read() + open(f"{DIR}/client.key").read())
    command = {"attache": [ATTACHE, "run", "-c", path], "haproxy": ["haproxy", "-db", "-f", path], "nginx": ["nginx", "-p", DIR, "-c", path],
               "envoy": [ENVOY, "-c", path, "--concurrency", "2", "-l", "error", "--use-dynamic-base-id"]}[proxy]
    log = open(f"{TRACE or DIR}/{proxy}.log", "a")
    return subprocess.Popen(command, stdout=log, stderr=log)


async def until_listening(process):
    for _ in range(200):
        try:
            (await asyncio.open_connection("127.0.0.1", LISTEN))[1].close()
            return True
        except OSError:
            if process.poll() is not None:
                return False
            await asyncio.sleep(.05)
    return False


def stop(proxy, process):
    """Ends the proxy at once: attache would drain its tunnels first, and nginx's workers would outlive a kill of their master."""
    process.terminate() if proxy == "nginx" else process.kill()
    process.wait()


def connection_failures():
    """The value of attache over all workers; `?` if attache has ended."""
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=2).read().decode()
    except OSError:
        return "?"
    return sum(int(n) for n in re.findall(r"attache_upstream_connection_failures_total\{[^}]*\} (\d+)", page))
