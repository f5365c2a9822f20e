# Shape: plain bytes by mutual TLS to a service.
ghostunnel client --listen localhost:8080 --target orders.example:8443 --cert=/c/tls.crt --key=/c/tls.key --cacert=/c/ca.crt --verify-dns orders.example
