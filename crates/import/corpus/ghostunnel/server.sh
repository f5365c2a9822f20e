# Shape: mutual TLS in front of a local service, for one identity.
ghostunnel server --listen 0.0.0.0:8443 --target localhost:8080 --cert /c/tls.crt --key /c/tls.key --cacert /c/ca.crt \
  --allow-uri spiffe://cluster.local/ns/shop/sa/web --allow-cn web
