#!/bin/sh
# Measures how many requests a deployment can serve, and how latency grows: calls one URL with more and more connections, one line for each step.
#
#   benches/load.sh URL [SECONDS_PER_STEP [CONNECTIONS...]]
#   benches/load.sh http://localhost:15001/orders 10 1 4 16 64
#   PROTOCOL=h2 benches/load.sh https://shop.example/ 10
#
# It needs h2load (Debian: nghttp2-client). Run it once against the application itself and once through the proxy: the difference is the cost of the proxy.
# HTTP/1.1 unless PROTOCOL=h2 (8 streams on each connection). HEADER='Host: orders.internal' adds a header.
set -eu
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
command -v h2load >/dev/null || { echo "h2load is not installed: apt-get install nghttp2-client" >&2; exit 1; }
url=$1
seconds=${2:-10}
[ $# -gt 2 ] && shift 2 || set -- 1 4 16 64 256
protocol=${PROTOCOL:-h1}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

printf '%11s %12s %9s %9s %9s %9s %8s\n' connections requests/s p50/ms p90/ms p99/ms max/ms failed
for connections in "$@"; do
    : >"$log"
    out=$(h2load -c "$connections" -m "$([ "$protocol" = h2 ] && echo 8 || echo 1)" -D "$seconds" --log-file="$log" \
        $([ "$protocol" = h2 ] || echo --h1) ${HEADER:+-H "$HEADER"} "$url" 2>&1) || { echo "$out" >&2; exit 1; }
    # Start, status and microseconds of every request; one without a response has status -1.
    sort -n -k3 "$log" | awk -v c="$connections" -v s="$seconds" '
        $2 < 200 || $2 >= 500 { failed++; next }
        { time[n++] = $3 / 1000 }
        function at(share) { return n ? time[int((n - 1) * share)] : 0 }
        END { printf "%11d %12.0f %9.2f %9.2f %9.2f %9.2f %8d\n", c, n / s, at(0.5), at(0.9), at(0.99), at(1), failed }'
done
