"""The same job written for each proxy.

A job gives the client's protocol (`front`: http, https, h2c, h2, tcp), the upstream's (`back`: http, https, h2c, tcp, and mtls), and the number of
endpoints and routes. A proxy that can't do a job has no config for it and is left out of that row. Each proxy has one worker, no log, kept connections
on both sides, and verified certificates; everything else is its default, so attache runs with metrics, breaker, retries and ejection.
If a job has an access log, each proxy writes one line with its usual fields for each request to a file: HAProxy through its standard output,
because it can't write to a file; nginx collects lines for at most a second, attache for 20 ms.
"""
import dataclasses
import json

from namespaces import REDIRECTED


@dataclasses.dataclass(frozen=True)
class Job:
    front: str
    back: str
    endpoints: int = 1
    routes: int = 1
    access_log: bool = False
    client_certificate: bool = False
    workers: int = 1
    #: The upstream's port, if it is not that of `back`.
    to: int = 0
    #: Two proxies of the same kind with mutual TLS between them: the cost of a call from pod to pod.
    pair: bool = False
    #: Calls are redirected to the proxy, which passes them on to their original destination.
    transparent: bool = False


class Ports:
    """The upstreams' ports; those of the proxies are assigned."""
    HTTP, HTTPS, MTLS, ECHO, SOURCE, GRPC = 18180, 18181, 18182, 18183, 18184, 18185
    #: The same HTTP upstream listens on this many ports.
    MANY = 19000

    @classmethod
    def back(cls, back):
        return {"http": cls.HTTP, "h2c": cls.GRPC, "https": cls.HTTPS, "mtls": cls.MTLS, "tcp": cls.ECHO,
                "source": cls.SOURCE, "upgrade": cls.ECHO}[back]


def hosts(job):
    """Name of the nth route's host; the load asks for the last one."""
    return [f"h{n}.test" for n in range(job.routes)]


def endpoints(job):
    if job.endpoints == 1:
        return [job.to or Ports.back(job.back)]
    return [Ports.MANY + n for n in range(job.endpoints)]


class Attache:
    name = "attache"

    def __init__(self, binary):
        self.binary = binary

    def command(self, job, port, pki):
        listener = {"bind": f"127.0.0.1:{REDIRECTED if job.transparent else port}"}
        if job.transparent:
            listener["transparent"] = True
        if job.front in ("https", "h2"):
            listener["tls"] = {"certificate": pki["server.crt"], "key": pki["server.key"]}
            if job.client_certificate:
                listener["tls"] |= {"client_ca": pki["ca.crt"], "mode": "strict"}
        if job.front == "tcp":
            listener["protocol"] = "tcp"
        if job.routes > 1:
            listener["routes"] = [{"match": {"host": host}, "to": "up"} for host in hosts(job)]
        else:
            listener["to"] = "up"
        scheme = {"https": "https", "mtls": "https", "tcp": "tcp", "source": "tcp"}.get(job.back, "http")
        upstream = {"address": [f"{scheme}://127.0.0.1:{port}" for port in endpoints(job)]}
        if len(upstream["address"]) == 1:
            upstream["address"] = upstream["address"][0]
        if job.transparent:
            upstream["address"] = "original-destination"
        if job.back == "h2c":
            upstream["protocol"] = "http2"
        if job.back in ("https", "mtls"):
            upstream["tls"] = {"ca": pki["ca.crt"], "name": "localhost"}
            if job.back == "mtls":
                upstream["tls"] |= {"certificate": pki["client.crt"], "key": pki["client.key"]}
        config = {"workers": job.workers, "metrics": f"127.0.0.1:{port + 2000}",
                  "listeners": {"front": listener}, "upstreams": {"up": upstream}}
        if job.access_log:
            config["access_log"] = {"to": "$HOME/access.log"}
        # JSON is YAML.
        return [self.binary, "run", "-c", "$HOME/config.yaml"], {"config.yaml": json.dumps(config, indent=1)}


class HAProxy:
    name = "HAProxy"

    def __init__(self, connections):
        self.connections = connections

    def command(self, job, port, pki):
        tcp = job.front == "tcp"
        bind = f" bind 127.0.0.1:{REDIRECTED if job.transparent else port}"
        if job.front in ("https", "h2"):
            bind += f" ssl crt {pki['server.pem']} alpn {'h2,' if job.front == 'h2' else ''}http/1.1"
            if job.client_certificate:
                bind += f" ca-file {pki['ca.crt']} verify required"
        elif job.front == "h2c":
            bind += " proto h2"
        server = ""
        if job.back in ("https", "mtls"):
            server += f" ssl verify required ca-file {pki['ca.crt']} verifyhost localhost"
            if job.back == "mtls":
                server += f" crt {pki['client.pem']}"
        elif job.back == "h2c":
            server += " proto h2"
        lines = ["global", f" nbthread {job.workers}", f" maxconn {self.connections}", "defaults", f" mode {'tcp' if tcp else 'http'}",
                 " timeout connect 5s", " timeout client 1m", " timeout server 1m", " timeout tunnel 1m"]
        lines += [] if tcp else [" http-reuse always"]
        lines += [" log stdout format raw local0", " option httplog"] if job.access_log else []
        lines += ["frontend f", bind]
        if job.routes > 1:
            lines.append(" use_backend b if { req.hdr(host),map($HOME/hosts) -m found }")
        else:
            lines.append(" default_backend b")
        lines += ["backend b", " balance leastconn"]
        to = ["*"] if job.transparent else [f"127.0.0.1:{end}" for end in endpoints(job)]
        lines += [f" server s{n} {end}{server}" for n, end in enumerate(to)]
        files = {"config": "\n".join(lines) + "\n", "hosts": "".join(f"{host} b\n" for host in hosts(job))}
        return ["haproxy", "-db", "-f", "$HOME/config"], files


class Nginx:
    name = "nginx"

    def command(self, job, port, pki):
        if job.back == "h2c" or job.transparent:
            return None
        servers = "".join(f"server 127.0.0.1:{end};" for end in endpoints(job))
        if job.front == "tcp":
            body = f"stream {{ upstream u {{ {servers} }} server {{ listen 127.0.0.1:{port}; proxy_pass u; }} }}"
            return self.with_body(body, "load_module /usr/lib/nginx/modules/ngx_stream_module.so;")
        listen = f"listen 127.0.0.1:{port}"
        tls = ""
        if job.front in ("https", "h2"):
            listen += " ssl" + (" http2" if job.front == "h2" else "")
            tls = f"ssl_certificate {pki['server.crt']}; ssl_certificate_key {pki['server.key']};"
            if job.client_certificate:
                tls += f"ssl_client_certificate {pki['ca.crt']}; ssl_verify_client on;"
        elif job.front == "h2c":
            listen += " http2"
        scheme = "http"
        if job.back in ("https", "mtls"):
            scheme = "https"
            tls += (f"proxy_ssl_trusted_certificate {pki['ca.crt']}; proxy_ssl_verify on; proxy_ssl_name localhost;"
                    "proxy_ssl_server_name on;")
            if job.back == "mtls":
                tls += f"proxy_ssl_certificate {pki['client.crt']}; proxy_ssl_certificate_key {pki['client.key']};"
        upgrade = "''" if job.back != "upgrade" else "upgrade"
        more = "proxy_set_header Upgrade websocket;" if job.back == "upgrade" else ""
        names = " ".join(hosts(job)) if job.routes > 1 else "_"
        log = "$HOME/access.log combined buffer=64k flush=1s" if job.access_log else "off"
        body = (f"http {{ access_log {log}; keepalive_requests 1000000000; server_names_hash_max_size 65536; server_names_hash_bucket_size 128;"
                "client_body_temp_path $HOME/b; proxy_temp_path $HOME/p; fastcgi_temp_path $HOME/f;"
                "uwsgi_temp_path $HOME/u; scgi_temp_path $HOME/s;"
                f"upstream u {{ least_conn; {servers} keepalive 256; keepalive_requests 1000000000; }}"
                f"server {{ {listen}; server_name {names}; {tls} location / {{ proxy_pass {scheme}://u; proxy_http_version 1.1;"
                f"proxy_set_header Connection {upgrade}; {more} }} }} }}")
        return self.with_body(body, workers=job.workers)

    @staticmethod
    def with_body(body, modules="", workers=1):
        text = (f"{modules} daemon off; worker_processes {workers}; pid $HOME/pid; error_log stderr error;"
                f"worker_rlimit_nofile 60000; events {{ worker_connections 30000; }} {body}\n")
        return ["nginx", "-c", "$HOME/config", "-p", "$HOME"], {"config": text}


class Envoy:
    name = "Envoy"

    def __init__(self, binary):
        self.binary = binary

    def command(self, job, port, pki):
        extension = "type.googleapis.com/envoy.extensions"
        tls_files = lambda name: [{"certificate_chain": {"filename": pki[f"{name}.crt"]}, "private_key": {"filename": pki[f"{name}.key"]}}]
        if job.front == "tcp":
            network = {"name": "tcp", "typed_config": {
                "@type": f"{extension}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "f", "cluster": "up"}}
        else:
            route = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
            virtual = [{"name": host, "domains": [host], "routes": [route]} for host in hosts(job)]
            if job.routes == 1:
                virtual = [{"name": "all", "domains": ["*"], "routes": [route]}]
            manager = {
                "@type": f"{extension}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "f",
                "codec_type": "AUTO", "route_config": {"virtual_hosts": virtual},
                "http_filters": [{"name": "router", "typed_config": {"@type": f"{extension}.filters.http.router.v3.Router"}}]}
            if job.back == "upgrade":
                manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
            if job.access_log:
                manager["access_log"] = [{"name": "file", "typed_config": {
                    "@type": f"{extension}.access_loggers.file.v3.FileAccessLog", "path": "$HOME/access.log"}}]
            network = {"name": "http", "typed_config": manager}
        chain = {"filters": [network]}
        if job.front in ("https", "h2"):
            context = {"@type": f"{extension}.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": {
                "tls_certificates": tls_files("server"), "alpn_protocols": ["h2", "http/1.1"] if job.front == "h2" else ["http/1.1"]}}
            if job.client_certificate:
                context["require_client_certificate"] = True
                context["common_tls_context"]["validation_context"] = {"trusted_ca": {"filename": pki["ca.crt"]}}
            chain["transport_socket"] = {"name": "tls", "typed_config": context}
        address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        limits = {"priority": "DEFAULT", "max_connections": 40000, "max_pending_requests": 40000, "max_requests": 40000}
        cluster = {
            "name": "up", "type": "STATIC", "lb_policy": "LEAST_REQUEST", "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "up", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(end)}} for end in endpoints(job)]}]}}
        if job.back == "h2c":
            cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{extension}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
        if job.back in ("https", "mtls"):
            common = {"validation_context": {"trusted_ca": {"filename": pki["ca.crt"]}}}
            if job.back == "mtls":
                common["tls_certificates"] = tls_files("client")
            cluster["transport_socket"] = {"name": "tls", "typed_config": {
                "@type": f"{extension}.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost", "common_tls_context": common}}
        listener = {"name": "f", "address": address(REDIRECTED if job.transparent else port), "filter_chains": [chain]}
        if job.transparent:
            listener["listener_filters"] = [{"name": "original_dst", "typed_config": {
                "@type": f"{extension}.filters.listener.original_dst.v3.OriginalDst"}}]
            del cluster["load_assignment"]
            cluster |= {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
        config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
        command = [self.binary, "-c", "$HOME/config.json", "--concurrency", str(job.workers), "--disable-hot-restart", "--log-level", "error"]
        return command, {"config.json": json.dumps(config)}
