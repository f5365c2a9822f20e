"""Provokes 25 failures with a real attache and says, for each, what its client saw and what one command says of cause and remedy.

troubles.py ATTACHE [--markdown FILE]: exits with 1 if a cause or a remedy is missing. FILE gets the table of docs/troubleshooting.md. Time
is from the client's error to the command's answer. Everything is on loopback; needs openssl.
"""

import socket
import threading
import time

from free_port import free_port
from trouble import Server, answers, certificate, dns, end, file, one, resets, running, tls

certificate("self", "attache-trouble.test", "IP:127.0.0.1,DNS:localhost")
certificate("other", "other.test", "DNS:other.test")
certificate("old", "localhost", "IP:127.0.0.1", days=None)
certificate("client", "client", "DNS:client", ca=True)
closed = free_port()
good = Server(answers())
full = Server(None, backlog=0)
held = [socket.socket() for _ in range(4)]
for s in held:
    s.setblocking(False)
    s.connect_ex(("127.0.0.1", full.port))

running("nothing listens on the upstream's port", one(f"http://127.0.0.1:{closed}"), "connect-refused", "listening on that port")
running("packets to the upstream are lost", one(f"http://127.0.0.1:{full.port}", ", connect_timeout: 300ms"), "connect-timeout", "firewall")
running("the upstream's name does not exist", f"dns: {{ servers: ['127.0.0.1:{dns(3)}'] }}\n" + one("http://orders.shop.test"),
        "no such name|nxdomain", "dig|name", before=1.0)
running("the DNS server fails", f"dns: {{ servers: ['127.0.0.1:{dns(2)}'] }}\n" + one("http://orders.shop.test"), "SERVFAIL from", "dig", before=1.0)
running("the DNS server is silent", f"dns: {{ servers: ['127.0.0.1:{dns(None)}'], timeout: 500ms }}\n" + one("http://orders.shop.test"),
        "no answer|dns-timeout", "DNS|server", before=2.0)
running("the certificate is self-signed", one(f"https://127.0.0.1:{Server(answers(), tls('self')).port}"), "self-signed", "add it as `ca:`")
running("the certificate is for another name",
        one(f"https://127.0.0.1:{Server(answers(), tls('other')).port}", ", tls: { ca: other.crt }"), "certificate is for `?other.test", "tls.name")
running("the certificate has expired", one(f"https://127.0.0.1:{Server(answers(), tls('old')).port}", ", tls: { ca: old.crt }"),
        "expired .* ago", "renew")
running("https:// to a port without TLS", one(f"https://127.0.0.1:{good.port}"), "tls-handshake-failed|tls-timeout|not TLS|doesn't speak TLS",
        "http://|really TLS")
running("http:// to a port that speaks TLS", one(f"http://127.0.0.1:{Server(answers(), tls('self')).port}"), "upstream-|TLS", "https://")
running("the upstream wants a client certificate",
        one(f"https://127.0.0.1:{Server(answers(), tls('self', client_ca='client')).port}", ", tls: { ca: self.crt }"),
        "tls-no-client-certificate|certificate required", "tls.certificate|client certificate")
running("the upstream resets the connection", one(f"http://127.0.0.1:{Server(resets).port}"), "upstream-reset", "upstream's log")
running("the upstream does not answer in time", one(f"http://127.0.0.1:{Server(answers(wait=9)).port}", route=", timeout: 400ms"),
        "request-timeout", "timeout")
running("the upstream cuts a body in the middle", one(f"http://127.0.0.1:{Server(answers(length=100)).port}"), "upstream-closed-mid-body",
        "upstream")
running("the upstream itself answers 500", one(f"http://127.0.0.1:{Server(answers('500 Oops')).port}"), "status 500", "look at its log")
running("no route takes the Host", f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ orders: 'http://127.0.0.1:{good.port}', "
        f"users: 'http://127.0.0.1:{closed}' }}\n", "routes for", "attache explain", call=lambda p: p.get(headers={"Host": "localhost:15001"}))
running("the failure breaker is open", one(f"http://127.0.0.1:{closed}", ", circuit_breaker: { failures: { consecutive: 3 } }"), "breaker is open",
        "connect-refused|circuit-open", calls=6)
running("every endpoint fails its health check", one(f"http://127.0.0.1:{Server(answers('500 Sick')).port}",
        ", health_check: { path: /healthz, interval: 200ms, unhealthy: 1 }"), "unhealthy", "health", before=1.5)
running("too many calls at once", one(f"http://127.0.0.1:{Server(answers(wait=2)).port}", ", circuit_breaker: { max_requests: 1 }"),
        "overflow-requests", "max_requests|raise",
        call=lambda p: (threading.Thread(target=p.get, daemon=True).start(), time.sleep(0.5), p.get())[2])
running("a rate limit of the config", one(f"http://127.0.0.1:{good.port}", route=", rate_limit: 1/m"), "rate-limited", "rate_limit|limit", calls=3)
running("an access rule denies it", f"listeners: {{ in: {{ bind: '127.0.0.1:$PORT', to: orders, authorization: {{ allow: [{{ path: /open }}] }} }} }}\n"
        f"upstreams: {{ orders: 'http://127.0.0.1:{good.port}' }}\n", "denied-by-rule", "attache explain")
running("the request could be read in two ways", one(f"http://127.0.0.1:{good.port}"), "bad-request", "RFC|client|header",
        call=lambda p: p.raw("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"))
file("a mistake in the config", "listeners: { out: { bnid: ':1' } }\nupstreams: { orders: 'http://a.test' }\n", "unknown key `bnid`", "did you mean `bind`")
file("a key that is not the certificate's",
     "listeners: { in: { bind: ':1', tls: { certificate: self.crt, key: other.key }, to: o } }\nupstreams: { o: 'http://a.test' }\n",
     "not the key of", "replace both")
file("the port is taken", f"admin: off\nmetrics: off\nlisteners: {{ out: {{ bind: '127.0.0.1:{good.port}' }} }}\nupstreams: {{ o: 'http://a.test' }}\n",
     "in use", "another|who|which|ss ", shown="run")
end()
