//! The words of HAProxy's servers, addresses and options: each is read as HAProxy reads it, or reported as lost.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

fn import(global: &str, frontend: &str, backend: &str) -> Imported {
    let text = format!(
        "global\n{global}\ndefaults\n mode http\nfrontend f\n bind 127.0.0.1:8080\n{frontend}\n default_backend b\nbackend b\n{backend}\n"
    );
    let file = File { path: "haproxy.cfg".into(), text };
    attache_import::import(ProxyKind::Haproxy, &[file]).unwrap()
}

fn servers(lines: &str) -> Imported {
    import("", "", lines)
}

#[test]
fn a_server_is_what_its_options_say_and_not_its_name_or_their_values() {
    let text = servers(
        " server backup 10.0.0.1:80\n server check 10.0.0.2:80\n server ssl 10.0.0.3:80 cookie disabled",
    )
    .text;
    for absent in ["priority", "health_check", "https", "left out"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    assert_eq!(text.matches("http://10.0.0.").count(), 3, "{text}");
}

#[test]
fn defaults_of_servers_hold_behind_them_and_are_taken_back_by_no() {
    let text = servers(
        " server a 10.0.0.1:80\n default-server backup weight 5\n server b 10.0.0.2:80\n server c 10.0.0.3:80 no-backup weight 7",
    )
    .text;
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "address: - http://10.0.0.1:80 - address: http://10.0.0.2:80 weight: 5 priority: 1 - address: \
                    http://10.0.0.3:80 weight: 7 host: preserve";
    assert!(flat.contains(expected), "{text}");
}

#[test]
fn every_word_of_a_server_is_read_or_told() {
    for (words, grade, said) in [
        ("check inter 1s", Grade::Nothing, "health_check"),
        ("send-proxy", Grade::Nothing, "proxy_protocol: v1"),
        ("send-proxy-v2", Grade::Nothing, "proxy_protocol: v2"),
        ("send-proxy-v2-ssl-cn", Grade::Point, "proxy_protocol: v2"),
        ("send-proxy-v2 proxy-v2-options unique-id", Grade::Point, "proxy_protocol: v2"),
        ("agent-check agent-port 9", Grade::Soft, "agent-check"),
        ("pool-max-conn 3", Grade::Soft, "pool-max-conn"),
        ("source 10.9.9.9", Grade::Point, "source"),
        ("socks4 10.9.9.9:1080", Grade::Point, "SOCKS"),
        ("namespace other", Grade::Point, "network namespace"),
        ("redir http://x.test", Grade::Point, "redirect"),
        ("zz-unknown", Grade::Point, "zz-unknown"),
        ("ssl verify none", Grade::Soft, "didn't verify"),
        ("ssl verify required ca-file /a.pem", Grade::Soft, "compared no name"),
        ("ssl verify required ca-file /a.pem verifyhost a.test", Grade::Nothing, "name: a.test"),
        ("ssl verify required ca-file /a.pem sni str(a.test)", Grade::Nothing, "name: a.test"),
        ("ssl verify required ca-file /a.pem sni req.hdr(host)", Grade::Point, "server name"),
        (
            "ssl verify required ca-file /a.pem verifyhost a.test crt /c.pem",
            Grade::Nothing,
            "certificate: /c.pem",
        ),
        (
            "ssl verify required ca-file /a.pem verifyhost a.test crl-file /r.pem",
            Grade::Nothing,
            "crls: /r.pem",
        ),
        (
            "ssl verify required ca-file /a.pem verifyhost a.test ssl-min-ver TLSv1.3",
            Grade::Nothing,
            "min_version",
        ),
        (
            "ssl verify required ca-file /a.pem verifyhost a.test check no-check-ssl",
            Grade::Nothing,
            "tls: false",
        ),
        ("check check-ssl", Grade::Soft, "health checks used TLS"),
    ] {
        let imported = servers(&format!(" server a a.internal:8443 {words}"));
        assert_eq!(imported.grade, grade, "{words}: {}", imported.text);
        let text = imported.text.replace("\n  #  ", "").replace("\n    #  ", "");
        assert!(text.contains(said), "{words}: {said}: {text}");
    }
    let out = servers(" server a 10.0.0.1:80 socks4 10.9.9.9:1080\n server b 10.0.0.2:80 weight 0");
    assert!(!out.text.contains("http://10.0.0."), "{}", out.text);
}

#[test]
fn servers_of_one_backend_that_differ_in_their_tls_are_told() {
    for (a, b) in [
        ("ssl verify none", ""),
        ("ssl verify required ca-file /a.pem", "ssl verify required ca-file /b.pem"),
        ("send-proxy", ""),
        ("proto h2", ""),
    ] {
        let imported = servers(&format!(" server a 10.0.0.1:80 {a}\n server b 10.0.0.2:80 {b}"));
        assert_eq!(imported.grade, Grade::Point, "{a} beside {b}: {}", imported.text);
    }
}

#[test]
fn what_global_says_of_tls_counts() {
    let tls = " bind 127.0.0.1:8443 ssl crt site.pem ca-file roots.pem verify required";
    let told = import(
        " crt-base /certs\n ca-base /roots\n ssl-default-bind-options no-tlsv12",
        tls,
        " server a a:80",
    )
    .text;
    for said in ["certificate: /certs/site.pem", "client_ca: /roots/roots.pem", "min_version: \"1.3\""] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let strict = import("", &format!("{tls} strict-sni"), " server a a:80");
    assert_eq!(strict.grade, Grade::Point, "{}", strict.text);
}

#[test]
fn options_are_read_as_they_are_switched_at_last() {
    assert!(import("", " option forwardfor", " server a a:80").text.contains("append"));
    assert!(
        !import("", " option forwardfor\n no option forwardfor", " server a a:80").text.contains("append")
    );
    let own = import("", "", " option forwardfor\n server a a:80").text;
    assert!(own.contains("add: { x-forwarded-for: \"%{client.address}\" }"), "{own}");
    for (frontend, backend) in [
        (" option zz-unknown", ""),
        (" option forwardfor header X-Client", ""),
        (" option forwardfor if-none", ""),
        ("", " option zz-unknown"),
        (" timeout zz-unknown 1s", ""),
        (" unique-id-header X-Id", ""),
        (" rate-limit sessions 5", ""),
        (" http-request redirect location /x set-cookie A=1", ""),
    ] {
        let imported = import("", frontend, &format!("{backend}\n server a a:80"));
        assert_eq!(imported.grade, Grade::Point, "{frontend}{backend}: {}", imported.text);
    }
}
