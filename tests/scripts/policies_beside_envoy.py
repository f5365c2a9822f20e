"""Twelve policies of attache and the same in Envoy, and sixty requests of each: whether both let the same through.

policies_beside_envoy.py ATTACHE ENVOY

Where the answers differ, attache must be the one that refuses, for a request that has two readings. Anything else ends with 1.
"""
import base64
import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from free_port import free_port
from beside_envoy import Stub, cluster, serve, wait_for

FOLDER = pathlib.Path(tempfile.mkdtemp())
TYPE = "type.googleapis.com/envoy.extensions"


# Tokens, signed by openssl.
def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], cwd=FOLDER, input=data, check=True, capture_output=True).stdout


def rsa(name):
    openssl("genrsa", "-out", f"{name}.key", "2048")
    modulus = openssl("rsa", "-in", f"{name}.key", "-noout", "-modulus").decode().strip().partition("=")[2]
    return {"kty": "RSA", "kid": name, "alg": "RS256", "use": "sig", "e": "AQAB", "n": b64(bytes.fromhex(modulus))}


def token(key="good", kid=None, alg="RS256", signed=True, **claims):
    now = int(time.time())
    payload = {"iss": "https://id.test", "aud": "shop", "sub": "kim", "exp": now + 3600} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    text = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": alg, "kid": kid or key, "typ": "JWT"}, payload))
    signature = b64(openssl("dgst", "-sha256", "-sign", f"{key}.key", data=text.encode())) if signed else ""
    return f"{text}.{signature}"


def bearer(*arguments, **claims):
    return [("authorization", "Bearer " + token(*arguments, **claims))]


# What Envoy's rules are made of.
def path(prefix=None, exact=None, regex=None):
    rule = {"prefix": prefix} if prefix else {"exact": exact} if exact else {"safe_regex": {"regex": regex}}
    return {"url_path": {"path": rule}}


def header(name, exact=None, ignore_case=False):
    return {"header": {"name": name, **({"string_match": {"exact": exact, "ignore_case": ignore_case}} if exact else {"present_match": True})}}


def methods(*names):
    return any_of(*(header(":method", name) for name in names))


def any_of(*rules):
    return {"or_rules": {"rules": list(rules)}}


def all_of(*rules):
    return {"and_rules": {"rules": list(rules)}}


def no(rule):
    return {"not_rule": rule}


def below(prefix):
    """A prefix on a segment boundary: `/admin/*` is `/admin` and what is below it."""
    return any_of(path(exact=prefix), path(prefix=prefix + "/"))


def rbac(action, permission=None, principal=None):
    policy = {"permissions": [permission or {"any": True}], "principals": [principal or {"any": True}]}
    return {"name": "envoy.filters.http.rbac", "typed_config": {
        "@type": f"{TYPE}.filters.http.rbac.v3.RBAC", "rules": {"action": action, "policies": {"one": policy}}}}


def claim(path_, value):
    last = {"list_match": {"one_of": {"string_match": {"exact": value}}}} if path_[-1] == "groups" else {"string_match": {"exact": value}}
    return {"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": key} for key in ("payload", *path_)], "value": last}}


def jwt(keys, required=True):
    rule = {"provider_name": "corp"} if required else {"requires_any": {"requirements": [
        {"provider_name": "corp"}, {"allow_missing": {}}]}}
    return {"name": "envoy.filters.http.jwt_authn", "typed_config": {
        "@type": f"{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"corp": {"issuer": "https://id.test", "audiences": ["shop"], "payload_in_metadata": "payload",
                               "local_jwks": {"inline_string": json.dumps(keys)}}},
        "rules": [{"match": {"prefix": "/"}, "requires": rule}]}}


def cidr(text):
    address, _, bits = text.partition("/")
    return {"address_prefix": address, "prefix_len": int(bits)}


def policies(keys):
    """Name, attache's `authorization`, Envoy's filters."""
    return [
        ("methods", {"allow": [{"methods": ["GET", "HEAD"]}]}, [rbac("ALLOW", methods("GET", "HEAD"))]),
        ("deny path", {"deny": [{"path": "/admin/*"}]}, [rbac("DENY", below("/admin"))]),
        ("allow path", {"allow": [{"path": ["/orders/*", "/health"]}]}, [rbac("ALLOW", any_of(below("/orders"), path(exact="/health")))]),
        ("pattern", {"allow": [{"path": "~/v[0-9]+/.*"}]}, [rbac("ALLOW", path(regex="/v[0-9]+/.*"))]),
        ("header", {"allow": [{"headers": {"x-role": "admin"}}]}, [rbac("ALLOW", header("x-role", "admin"))]),
        ("deny header", {"deny": [{"headers": {"x-blocked": "*"}}]}, [rbac("DENY", header("x-blocked"))]),
        ("host", {"allow": [{"host": "app.test"}]}, [rbac("ALLOW", header(":authority", "app.test", ignore_case=True))]),
        ("deny, allow, not", {"deny": [{"methods": "DELETE", "not": {"headers": {"x-role": "admin"}}}],
                              "allow": [{"path": "/orders/*", "not": {"path": "/orders/internal/*"}}]},
         [rbac("DENY", all_of(methods("DELETE"), no(header("x-role", "admin")))),
          rbac("ALLOW", all_of(below("/orders"), no(below("/orders/internal"))))]),
        ("forwarded client", {"trusted_proxies": "127.0.0.1/32", "allow": [{"forwarded_client": "10.0.0.0/8"}]},
         [rbac("ALLOW", principal={"remote_ip": cidr("10.0.0.0/8")})]),
        ("token", {"jwt": {"issuers": "corp"}, "allow": [{"path": "/*"}]}, [jwt(keys), rbac("ALLOW")]),
        ("claims", {"jwt": {"issuers": "corp"}, "allow": [{"claims": {"groups": "ops"}}, {"claims": {"realm.role": "root"}}]},
         [jwt(keys), rbac("ALLOW", principal={"or_ids": {"ids": [claim(["groups"], "ops"), claim(["realm", "role"], "root")]}})]),
        ("optional token", {"jwt": {"issuers": "corp", "required": False}, "allow": [{"methods": "GET", "path": "/health"}, {"claims": {"sub": "kim"}}]},
         [jwt(keys, False), {"name": "envoy.filters.http.rbac", "typed_config": {
             "@type": f"{TYPE}.filters.http.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": {
                 "health": {"permissions": [all_of(methods("GET"), path(exact="/health"))], "principals": [{"any": True}]},
                 "kim": {"permissions": [{"any": True}], "principals": [claim(["sub"], "kim")]}}}}}]),
    ]


def requests():
    """Method, target, headers."""
    soon, past = int(time.time()) + 30, int(time.time()) - 3600
    plain = ["/", "/health", "/health/", "/orders", "/orders/", "/orders/1", "/orders/internal", "/orders/internal/x", "/orders2", "/admin", "/admin/",
             "/admin/x", "/administrator", "/v1/a", "/v12/b/c", "/vx/a", "/v1", "/orders/1?path=/admin/x", "/x?next=/health"]
    twisted = ["/orders/../admin/x", "/orders/./1", "/%61dmin/x", "/orders/%69nternal/x", "/orders/%2e%2e/admin/x", "/ADMIN/x", "/Orders/1",
               "//admin/x", "/admin%2Fx", "/orders/..%2Fadmin/x", "/admin;x=1/y", "/orders//1"]
    yield from (("GET", target, []) for target in plain + twisted)
    yield from ((method, "/orders/1", []) for method in ("HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
    yield "DELETE", "/orders/1", [("x-role", "admin")]
    yield "GET", "/orders/1", [("x-role", "admin")]
    yield "GET", "/orders/1", [("X-Role", "Admin")]
    yield "GET", "/orders/1", [("x-role", "user"), ("x-role", "admin")]
    yield "GET", "/orders/1", [("x_role", "admin")]
    yield "GET", "/orders/1", [("x-blocked", "1")]
    yield "GET", "/orders/1", [("X-BLOCKED", "")]
    yield "GET", "/orders/1", [("host", "other.test")]
    yield "GET", "/orders/1", [("host", "APP.test")]
    yield "GET", "/orders/1", [("x-forwarded-for", "10.1.2.3")]
    yield "GET", "/orders/1", [("x-forwarded-for", "11.1.2.3")]
    yield "GET", "/orders/1", [("x-forwarded-for", "10.1.2.3, 11.1.2.3")]
    yield "GET", "/orders/1", [("x-forwarded-for", "11.1.2.3, 10.1.2.3")]
    yield "GET", "/orders/1", bearer()
    yield "GET", "/orders/1", bearer(groups=["dev", "ops"])
    yield "GET", "/orders/1", bearer(groups=["dev"], realm={"role": "root"}, sub="lee")
    yield "GET", "/orders/1", bearer(exp=past)
    yield "GET", "/orders/1", bearer(nbf=soon + 3600)
    yield "GET", "/orders/1", bearer(aud="bank")
    yield "GET", "/orders/1", bearer(iss="https://other.test")
    yield "GET", "/orders/1", bearer("bad", "good")
    yield "GET", "/orders/1", bearer("bad")
    yield "GET", "/orders/1", bearer(alg="none", signed=False)
    yield "GET", "/orders/1", [("authorization", "Basic YTpi")]


def envoy_config(listen, app, filters):
    hcm = {"@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in", "normalize_path": True,
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
           "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}]}
    return {"name": f"in{listen}", "address": {"socket_address": {"address": "127.0.0.1", "port_value": listen}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}, cluster("app", app)


def ask(listen, method, target, headers):
    connection = http.client.HTTPConnection("127.0.0.1", listen, timeout=20)
    connection.putrequest(method, target, skip_accept_encoding=True, skip_host=True)
    if not any(name.lower() == "host" for name, _ in headers):
        connection.putheader("host", "app.test")
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse().status


def main():
    attache, envoy = sys.argv[1:3]
    keys = {"keys": [rsa("good")]}
    rsa("bad")
    app = serve(Stub)
    table = policies(keys)
    ports = {(name, who): free_port() for name, *_ in table for who in ("attache", "envoy")}
    listeners = {f"p{n}": {"bind": f"127.0.0.1:{ports[name, 'attache']}", "authorization": rules, "to": "app"} for n, (name, rules, _) in enumerate(table)}
    ours = {"metrics": "off", "admin": "off", "listeners": listeners, "upstreams": {"app": f"http://127.0.0.1:{app}"},
            "jwt": {"corp": {"issuer": "https://id.test", "audiences": "shop", "keys": {"inline": json.dumps(keys)}}}}
    theirs = [envoy_config(ports[name, "envoy"], app, filters) for name, _, filters in table]
    theirs = {"static_resources": {"listeners": [listener for listener, _ in theirs], "clusters": [theirs[0][1]]}}
    programs, log = [], open(FOLDER / "log", "w")
    same, stricter, wrong, counts = 0, [], [], {}
    try:
        for name, config, command in (("attache", ours, [attache, "run", "--config"]), ("envoy", theirs, [envoy, "--base-id", str(app), "-l", "error", "-c"])):
            (FOLDER / f"{name}.yaml").write_text(json.dumps(config))
            programs.append(subprocess.Popen([*command, str(FOLDER / f"{name}.yaml")], stdout=log, stderr=log))
        wait_for(ports.values(), FOLDER / "log")
        asked = list(requests())
        for name, *_ in table:
            for request in asked:
                one, other = (ask(ports[name, who], *request) for who in ("attache", "envoy"))
                count = counts.setdefault(name, [0, 0, 0])
                count[0] += one == other and one == 200
                count[1] += one == other and one != 200
                count[2] += one != other
                if one == other:
                    same += 1
                elif one >= 400:
                    stricter.append((name, request, one, other))
                else:
                    wrong.append((name, request, one, other))
        print(f"| policy | both let through | both refuse alike | differ |\n| --- | ---: | ---: | ---: |")
        for name, count in counts.items():
            print(f"| {name} | {' | '.join(map(str, count))} |")
        for kind, cases in (("attache alone refuses, or in other words", stricter), ("ENVOY ALONE REFUSES", wrong)):
            for name, (method, target, headers), one, other in cases:
                fields = ", ".join(f"{field}: {value[:24]}" for field, value in headers)
                print(f"{kind}: {name}: {method} {target} {fields}: {one}, Envoy {other}")
        print(f"{len(asked)} requests, {len(table)} policies: {same} the same, {len(stricter)} stricter, {len(wrong)} laxer")
    finally:
        for program in programs:
            program.kill()
    sys.exit(bool(wrong))


main()
