"""Objects of Istio and of the Gateway API, and what their reference says of requests.

A case is its name, the listener that is asked, its objects, and requests with their answers.
A request is `METHOD TARGET [host=HOST] [as=CLIENT] [HEADER=VALUE …] -> STATUS [words of the answer]`.
"""
PLAINTEXT = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: shop}
spec: {host: "*.shop.svc.cluster.local", trafficPolicy: {tls: {mode: DISABLE}}}
"""


def mutual_tls(mode):
    return ("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
            f"metadata: {{name: default, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n")


def policy(spec, namespace="shop"):
    return ("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
            f"metadata: {{name: p{abs(hash(spec)) % 1000000}, namespace: {namespace}}}\nspec: {spec}\n")


def service(name):
    return (f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n"
            "spec: {clusterIP: None, ports: [{port: 9080, name: http}]}\n")


def virtual_service(spec):
    return ("apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
            f"metadata: {{name: routes, namespace: shop}}\nspec: {spec}\n")


def http_route(spec):
    return ("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
            f"metadata: {{name: routes, namespace: shop}}\nspec: {spec}\n")


CASES = [
    ('no policy: open', 'inbound', [
        mutual_tls("DISABLE"),
    ], [
        'GET / -> 200',
        'DELETE /x -> 200',
    ]),
    ('allow-nothing: spec {}', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{}'),
    ], [
        'GET / -> 403',
        'POST /a -> 403',
    ]),
    ('allow-all: rules [{}]', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{}]}'),
    ], [
        'GET / -> 200',
    ]),
    ('deny-all: DENY rules [{}]', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{}]}'),
    ], [
        'GET / -> 403',
    ]),
    ('DENY without rules never matches', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY}'),
    ], [
        'GET / -> 200',
    ]),
    ('methods and path prefix', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{to: [{operation: {methods: [GET], paths: ["/info*"]}}]}]}'),
    ], [
        'GET /info -> 200',
        'GET /information/x -> 200',
        'POST /info -> 403',
        'GET /other -> 403',
        'GET /INFO -> 403',
        'HEAD /info -> 403',
    ]),
    ('path suffix, exact, presence', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{to: [{operation: {paths: ["*/info", "/exact"]}}]}]}'),
    ], [
        'GET /a/info -> 200',
        'GET /info -> 200',
        'GET /info/x -> 403',
        'GET /exact -> 200',
        'GET /exact/ -> 403',
        'GET /a/info?x=1 -> 200',
    ]),
    ('deny before allow', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{}]}'),
        policy('{action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}'),
    ], [
        'GET /admin -> 403',
        'GET /admins -> 403',
        'GET /x -> 200',
        'GET /x/../admin -> 403',
        'GET /%61dmin -> 403',
        'GET //admin -> 403',
    ]),
    ('notPaths in DENY', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{to: [{operation: {notPaths: ["/health*"]}}]}]}'),
    ], [
        'GET /healthz -> 200',
        'GET /x -> 403',
        'GET /health/../x -> 403',
    ]),
    ('notMethods in DENY', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{to: [{operation: {notMethods: [GET, HEAD]}}]}]}'),
    ], [
        'GET / -> 200',
        'POST / -> 403',
        'get / -> 400',  # Envoy's parser of HTTP/1 knows no such method, and no policy is asked.
    ]),
    ('hosts', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{to: [{operation: {hosts: [example.com, "*.internal", "prefix.*"]}}]}]}'),
    ], [
        'GET / host=example.com -> 200',
        'GET / host=EXAMPLE.com -> 200',
        'GET / host=example.com:8080 -> 403',
        'GET / host=a.internal -> 200',
        'GET / host=internal -> 403',
        'GET / host=prefix.x -> 200',
        'GET / host=x.example.com -> 403',
    ]),
    ('when request.headers', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{when: [{key: "request.headers[x-token]", values: [secret, "pre-*"]}]}]}'),
    ], [
        'GET / x-token=secret -> 200',
        'GET / X-Token=pre-1 -> 200',
        'GET / x-token=Secret -> 403',
        'GET / -> 403',
        'GET / x-token=no x-token=secret -> 403',
    ]),
    ('when notValues', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{when: [{key: "request.headers[x-env]", notValues: [prod]}]}]}'),
    ], [
        'GET / x-env=prod -> 200',
        'GET / x-env=dev -> 403',
        'GET / -> 403',
    ]),
    ('source ipBlocks', 'inbound', [
        mutual_tls("DISABLE"),
        policy(
            '{action: ALLOW, rules: [{from: [{source: {ipBlocks: ["127.0.0.0/8"]}}], to: [{operation: {paths: '
            '["/a"]}}]}]}'
        ),
    ], [
        'GET /a -> 200',
        'GET /b -> 403',
    ]),
    ('source notIpBlocks', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{from: [{source: {notIpBlocks: ["10.0.0.0/8"]}}]}]}'),
    ], [
        'GET /a -> 403',
    ]),
    ('two rules, one of them enough', 'inbound', [
        mutual_tls("DISABLE"),
        policy(
            '{action: ALLOW, rules: [{to: [{operation: {paths: ["/a"]}}]}, {to: [{operation: {methods: '
            '[PUT]}}]}]}'
        ),
    ], [
        'GET /a -> 200',
        'PUT /b -> 200',
        'GET /b -> 403',
    ]),
    ('selector of another workload', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}'),
    ], [
        'GET / -> 200',
    ]),
    ('policy of another namespace', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{}]}', "other"),
    ], [
        'GET / -> 200',
    ]),
    ('policy of the root namespace', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}', "istio-system"),
    ], [
        'DELETE / -> 403',
        'GET / -> 200',
    ]),
    ('path templates', 'inbound', [
        mutual_tls("DISABLE"),
        policy('{action: ALLOW, rules: [{to: [{operation: {paths: ["/store/{*}/cart", "/files/{**}"]}}]}]}'),
    ], [
        'GET /store/1/cart -> 200',
        'GET /store/1/2/cart -> 403',
        'GET /files/a/b -> 200',
        'GET /store//cart -> 403',
    ]),
    ('STRICT: principals', 'inbound', [
        mutual_tls("STRICT"),
        policy('{action: ALLOW, rules: [{from: [{source: {principals: ["cluster.local/ns/foo/sa/sleep"]}}]}]}'),
    ], [
        'GET / as=sleep -> 200',
        'GET / as=orders -> 403',
        'GET / as=far -> 403',
        'GET / as=none -> closed',
        'GET / -> closed',
    ]),
    ('STRICT: namespaces', 'inbound', [
        mutual_tls("STRICT"),
        policy('{action: ALLOW, rules: [{from: [{source: {namespaces: [foo]}}]}]}'),
    ], [
        'GET / as=sleep -> 200',
        'GET / as=orders -> 403',
    ]),
    ('STRICT: notPrincipals', 'inbound', [
        mutual_tls("STRICT"),
        policy(
            '{action: DENY, rules: [{from: [{source: {notPrincipals: ["cluster.local/ns/shop/sa/orders"]}}], to: '
            '[{operation: {paths: ["/orders*"]}}]}]}'
        ),
    ], [
        'GET /orders as=orders -> 200',
        'GET /orders as=sleep -> 403',
        'GET /x as=sleep -> 200',
    ]),
    ('STRICT: principals prefix', 'inbound', [
        mutual_tls("STRICT"),
        policy('{action: ALLOW, rules: [{from: [{source: {principals: ["cluster.local/ns/shop/*"]}}]}]}'),
    ], [
        'GET / as=orders -> 200',
        'GET / as=sleep -> 403',
    ]),
    ('STRICT: principals *', 'inbound', [
        mutual_tls("STRICT"),
        policy('{action: ALLOW, rules: [{from: [{source: {principals: ["*"]}}]}]}'),
    ], [
        'GET / as=orders -> 200',
    ]),
    ('PERMISSIVE: plaintext has no identity', 'inbound', [
        mutual_tls("PERMISSIVE"),
        policy(
            '{action: ALLOW, rules: [{from: [{source: {principals: ["*"]}}]}, {to: [{operation: {paths: '
            '["/public"]}}]}]}'
        ),
    ], [
        'GET / as=orders -> 200',
        'GET / -> 403',
        'GET /public -> 200',
    ]),
    ('STRICT: source and operation and when', 'inbound', [
        mutual_tls("STRICT"),
        policy(
            '{action: ALLOW, rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {methods: '
            '[POST]}}], when: [{key: "request.headers[x-v]", values: ["1"]}]}]}'
        ),
    ], [
        'POST / as=orders x-v=1 -> 200',
        'POST / as=orders -> 403',
        'GET / as=orders x-v=1 -> 403',
        'POST / as=sleep x-v=1 -> 403',
    ]),
    ('VS: header match, first wins, default', 'outbound', [
        service("reviews"),
        service("ratings"),
        PLAINTEXT,
        virtual_service(
            '{hosts: [reviews], http: [{match: [{headers: {end-user: {exact: jason}}}], route: [{destination: '
            '{host: ratings}}]}, {route: [{destination: {host: reviews}}]}]}'
        ),
    ], [
        'GET / host=reviews end-user=jason -> 200 ratings',
        'GET / host=reviews -> 200 reviews',
        'GET / host=reviews.shop.svc.cluster.local:9080 end-user=jason -> 200 ratings',
        'GET / host=reviews end-user=Jason -> 200 reviews',
    ]),
    ('VS: uri prefix/exact/regex, rewrite', 'outbound', [
        service("a"),
        service("b"),
        service("c"),
        PLAINTEXT,
        virtual_service(
            '{hosts: [a], http: [{match: [{uri: {exact: /login}}], route: [{destination: {host: b}}]}, {match: '
            '[{uri: {prefix: /api/v1}}], rewrite: {uri: /v1}, route: [{destination: {host: b}}]}, {match: [{uri: '
            '{regex: "/u/[0-9]+"}}], route: [{destination: {host: c}}]}, {route: [{destination: {host: a}}]}]}'
        ),
    ], [
        'GET /login host=a -> 200 b /login',
        'GET /login/ host=a -> 200 a /login/',
        'GET /api/v1/x host=a -> 200 b /v1/x',
        'GET /api/v12 host=a -> 200 b /v12',
        'GET /u/12 host=a -> 200 c /u/12',
        'GET /u/12/x host=a -> 200 a /u/12/x',
    ]),
    ('VS: or of matches, and within one, methods, query', 'outbound', [
        service("a"),
        service("b"),
        PLAINTEXT,
        virtual_service(
            '{hosts: [a], http: [{match: [{uri: {prefix: /x}, method: {exact: POST}}, {queryParams: {v: {exact: '
            '"2"}}}], route: [{destination: {host: b}}]}, {route: [{destination: {host: a}}]}]}'
        ),
    ], [
        'POST /x host=a -> 200 b',
        'GET /x host=a -> 200 a',
        'GET /?v=2 host=a -> 200 b',
        'GET /?v=3 host=a -> 200 a',
    ]),
    ('VS: redirect, directResponse, fault', 'outbound', [
        service("a"),
        PLAINTEXT,
        virtual_service(
            '{hosts: [a], http: [{match: [{uri: {prefix: /old}}], redirect: {uri: /new, authority: b.test, '
            'redirectCode: 302}}, {match: [{uri: {exact: /teapot}}], directResponse: {status: 418}}, {match: '
            '[{uri: {prefix: /broken}}], fault: {abort: {httpStatus: 555, percentage: {value: 100}}}, route: '
            '[{destination: {host: a}}]}, {route: [{destination: {host: a}}]}]}'
        ),
    ], [
        'GET /old/x host=a -> 302 http://b.test/new',
        'GET /teapot host=a -> 418',
        'GET /broken/1 host=a -> 555',
        'GET / host=a -> 200 a',
    ]),
    ('VS: withoutHeaders, ignoreUriCase, headers edits', 'outbound', [
        service("a"),
        service("b"),
        PLAINTEXT,
        virtual_service(
            '{hosts: [a], http: [{match: [{withoutHeaders: {x-skip: {}}, uri: {prefix: /CASE}, ignoreUriCase: '
            'true}], headers: {request: {set: {x-added: "1"}, remove: [x-gone]}}, route: [{destination: {host: '
            'b}}]}, {route: [{destination: {host: a}}]}]}'
        ),
    ], [
        'GET /case/1 host=a x-gone=1 -> 200 b x-added: 1',
        'GET /case/1 host=a x-skip=1 -> 200 a',
        'GET /other host=a -> 200 a',
    ]),
    ('VS: no match is 404', 'outbound', [
        service("a"),
        PLAINTEXT,
        virtual_service('{hosts: [a], http: [{match: [{uri: {prefix: /only}}], route: [{destination: {host: a}}]}]}'),
    ], [
        'GET /only/x host=a -> 200 a',
        'GET /x host=a -> 404',
    ]),
    ('HTTPRoute: most specific wins, whatever the order', 'outbound', [
        service("a"),
        service("b"),
        service("c"),
        PLAINTEXT,
        http_route(
            '{parentRefs: [{kind: Service, group: "", name: a, port: 9080}], rules: [{matches: [{path: {type: '
            'PathPrefix, value: /}}], backendRefs: [{name: a, port: 9080}]}, {matches: [{path: {type: PathPrefix, '
            'value: /v1}}], backendRefs: [{name: b, port: 9080}]}, {matches: [{path: {type: Exact, value: '
            '/v1/x}}, {method: DELETE}], backendRefs: [{name: c, port: 9080}]}]}'
        ),
    ], [
        'GET / host=a -> 200 a',
        'GET /v1 host=a -> 200 b',
        'GET /v1/y host=a -> 200 b',
        'GET /v12 host=a -> 200 a',
        'GET /v1/x host=a -> 200 c',
        'DELETE /z host=a -> 200 c',
    ]),
    ('HTTPRoute: filters', 'outbound', [
        service("a"),
        service("b"),
        PLAINTEXT,
        http_route(
            '{parentRefs: [{kind: Service, group: "", name: a, port: 9080}], rules: [{matches: [{path: {type: '
            'PathPrefix, value: /p}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, '
            'replacePrefixMatch: /q}}}, {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: '
            'x-added, value: y}], remove: [x-gone]}}], backendRefs: [{name: b, port: 9080}]}, {matches: [{path: '
            '{type: PathPrefix, value: /r}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: '
            'z.test, statusCode: 301}}]}, {backendRefs: [{name: a, port: 9080}]}]}'
        ),
    ], [
        'GET /p/x host=a x-gone=1 -> 200 b /q/x x-added: y',
        'GET /p host=a -> 200 b /q',
        'GET /px host=a -> 200 a /px',
        'GET /r/1 host=a -> 301 http://z.test',
    ]),
]
