"""Records what a real API server says of EndpointSlices, and holds a live attache to it: record_slices.py ATTACHE URL CA TOKEN OUT.

URL is that of an API server, CA its authority, TOKEN that of an administrator. It makes the namespaces `shop` and `web`, applies the Role of
deploy/kubernetes/endpoint-slices.yaml, gets tokens of the service account `web` (TokenRequest), and writes slices as the EndpointSlice
controller would. After each step the endpoints of attache (its admin API) must be those that are expected. What the API server said to a
client that asks as attache does goes to OUT: list.json, watch.jsonl, and the answers to a wrong token and to a missing right.

No kubelet and no controller is needed. Not part of any test run: no package has an API server; `cargo test -p attache-upstream` replays
what was recorded.
"""

import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import yaml

attache, url, ca, admin, out = sys.argv[1:]
out = pathlib.Path(out)
context = ssl.create_default_context(cafile=ca)
slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
selector = "labelSelector=kubernetes.io%2Fservice-name%3Dorders"
ADMIN = "127.0.0.1:15777"


def call(method, path, body=None, token=admin, stream=False, kind="application/json"):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, "Accept": "application/json"}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url + path, data, headers, method=method), context=context, timeout=330)
        return answer if stream else (answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def done(answer, *codes):
    assert answer[0] in (codes or (200, 201)), answer
    return json.loads(answer[1])


def endpoint(ip, number, zone="eu-west-1a", hint=None, ready=True, serving=True, terminating=False):
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    reference = {"kind": "Pod", "namespace": "shop", "name": f"orders-6d4f9c7b8-{number:05}", "uid": f"6f0b5f5e-5d0c-4f4e-9a1b-{number:012}"}
    own = {"addresses": [ip], "conditions": conditions, "nodeName": f"node-{zone}", "targetRef": reference, "zone": zone}
    return {**own, **({"hints": {"forZones": [{"name": hint}]}} if hint else {})}


def slice_of(name, family, endpoints, port=8080, labels=None):
    own = {"kubernetes.io/service-name": "orders", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    ports = [{"name": "http", "port": port, "protocol": "TCP"}, {"name": "metrics", "port": 9090, "protocol": "TCP"}]
    metadata = {"name": name, "generateName": "orders-", "namespace": "shop", "labels": own if labels is None else labels}
    kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
    return {**kind, "metadata": metadata, "addressType": family, "endpoints": endpoints, "ports": ports}


def put(slice, create=False):
    path = slices if create else f"{slices}/{slice['metadata']['name']}"
    done(call("POST" if create else "PUT", path, slice))


def renew(folder, seconds=3600):
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
    token = done(call("POST", "/api/v1/namespaces/web/serviceaccounts/web/token", body))["status"]["token"]
    (folder / "new").write_text(token)
    (folder / "new").rename(folder / "token")
    return token


def seen():
    all = json.load(urllib.request.urlopen(f"http://{ADMIN}/upstreams", timeout=5))
    return sorted(one["address"] for one in all[0]["endpoints"]) if all else None


def expect(step, *endpoints):
    end = time.monotonic() + 20
    while (now := seen()) != sorted(endpoints):
        assert time.monotonic() < end, f"{step}: attache has {now}, not {sorted(endpoints)}"
        time.sleep(0.05)
    steps.append({"step": step, "endpoints": sorted(endpoints), "lines": len(lines)})
    print(f"{step}: {sorted(endpoints)}")


def record(version, token):
    path = f"{slices}?{selector}&watch=1&allowWatchBookmarks=true&timeoutSeconds=90&resourceVersion={version}"
    for line in call("GET", path, token=token, stream=True):
        lines.append(line.decode().rstrip("\n"))


rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop"
for path in (f"{slices}?{selector}", f"{slices}/orders-second", f"{rbac}/rolebindings", f"{rbac}/roles"):
    call("DELETE", path)
for name in ("shop", "web"):
    call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
file = pathlib.Path(__file__).parents[2] / "deploy/kubernetes/endpoint-slices.yaml"
role, binding, account, *_ = yaml.safe_load_all(file.read_text())
call("POST", "/api/v1/namespaces/web/serviceaccounts", account)
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "ca.crt").write_text(pathlib.Path(ca).read_text())
token = renew(folder)
(out / "forbidden.json").write_text(call("GET", f"{slices}?{selector}", token=token)[1])
(out / "unauthorized.json").write_text(call("GET", f"{slices}?{selector}", token="nobody's")[1])
done(call("POST", f"{rbac}/roles", role))
done(call("POST", f"{rbac}/rolebindings", binding))

a, b, c = "10.244.1.17:8080", "10.244.2.23:8080", "10.244.1.18:8080"
pods = [endpoint("10.244.1.17", 1), endpoint("10.244.2.23", 2, "eu-west-1b")]
six = [endpoint("fd00:10:244:1::11", 1), endpoint("fd00:10:244:2::17", 2, "eu-west-1b")]
put(slice_of("orders-7xk2p", "IPv4", pods), create=True)
put(slice_of("orders-v6q9d", "IPv6", six), create=True)
text = call("GET", f"{slices}?{selector}&resourceVersion=0", token=token)[1]
(out / "list.json").write_text(text)
lines, steps = [], []
recorder = threading.Thread(target=record, args=(json.loads(text)["metadata"]["resourceVersion"], token))
recorder.start()

host, port = url.removeprefix("https://").split(":")
place = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "ATTACHE_SERVICE_ACCOUNT": str(folder)}
(folder / "attache.yaml").write_text(
    f"admin: '{ADMIN}'\nmetrics: off\nlisteners: {{ out: {{ bind: '127.0.0.1:15778', to: orders }} }}\n"
    "upstreams: { orders: { address: 'kubernetes+http://orders.shop:http' } }\n"
)
log = open(folder / "log", "w+")
process = subprocess.Popen([attache, "run", "-c", folder / "attache.yaml"], env={**os.environ, **place}, stdout=log, stderr=log)
try:
    for _ in range(100):
        try:
            if seen() is not None:
                break
        except OSError:
            pass
        time.sleep(0.1)
    expect("listed, of two families one", a, b)
    new = endpoint("10.244.1.18", 3, ready=False, serving=False)
    put(slice_of("orders-7xk2p", "IPv4", [*pods, new]))
    expect("a new pod is not ready", a, b)
    new = endpoint("10.244.1.18", 3)
    put(slice_of("orders-7xk2p", "IPv4", [*pods, new]))
    expect("it is ready", a, b, c)
    ends = endpoint("10.244.1.17", 1, ready=False, terminating=True)
    put(slice_of("orders-7xk2p", "IPv4", [ends, pods[1], new]))
    expect("the old one terminates and serves", b, c)
    put(slice_of("orders-7xk2p", "IPv4", [endpoint("10.244.1.17", 1, ready=False, serving=False, terminating=True), pods[1], new]))
    expect("it serves no more", b, c)
    put(slice_of("orders-7xk2p", "IPv4", [pods[1], new]))
    expect("it is gone", b, c)
    all_end = [endpoint("10.244.2.23", 2, "eu-west-1b", ready=False, terminating=True), endpoint("10.244.1.18", 3, ready=False, terminating=True)]
    put(slice_of("orders-7xk2p", "IPv4", all_end))
    six_end = [endpoint("fd00:10:244:2::17", 2, "eu-west-1b", ready=False, terminating=True)]
    put(slice_of("orders-v6q9d", "IPv6", six_end))
    expect("only such are left", b, c)
    # The EndpointSlice API says that a missing condition is unknown, and unknown `ready` is ready.
    bare = {"addresses": ["10.244.3.9"], "conditions": {}}
    hinted = endpoint("10.244.2.23", 2, "eu-west-1b", hint="eu-west-1a")
    put(slice_of("orders-7xk2p", "IPv4", [hinted, bare]))
    expect("unknown is ready, and a hint", b, "10.244.3.9:8080")
    put(slice_of("orders-7xk2p", "IPv4", [hinted], port=9080))
    expect("the named port has another number", "10.244.2.23:9080")
    put(slice_of("orders-second", "IPv4", [endpoint("10.244.4.4", 4), hinted], port=9080), create=True)
    expect("a second slice, one endpoint in both", "10.244.2.23:9080", "10.244.4.4:9080")
    put(slice_of("orders-second", "IPv4", [endpoint("10.244.4.4", 4)], port=9080, labels={"app": "orders"}))
    expect("a slice has lost its label", "10.244.2.23:9080")
    for name in ("orders-7xk2p", "orders-v6q9d"):
        done(call("DELETE", f"{slices}/{name}"))
    expect("the Service is deleted")
    token = renew(folder)
    put(slice_of("orders-b8c4z", "IPv4", pods), create=True)
    expect("and made again, after the token was renewed", a, b)
    recorder.join()
    print(f"{len(lines)} lines, the last is a {json.loads(lines[-1])['type']}")
    put(slice_of("orders-b8c4z", "IPv4", [pods[1]]))
    expect("after the recording has ended", b)
finally:
    process.terminate()
    process.wait()
log.seek(0)
print("".join(line for line in log if " WARN " in line or " ERROR " in line) or "no warnings")
(out / "watch.jsonl").write_text("\n".join(lines) + "\n")
(out / "steps.json").write_text(json.dumps(steps, indent=1) + "\n")
