//! Configs that have a part in another file: a rule in a file that the import can't read is never lost silently.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::{env, fs, process};

use attache_import::{File, Grade, Imported, ProxyKind};

/// A folder that is removed at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("attache-files-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Imports these files of the folder.
    fn import(&self, names: &[&str]) -> Imported {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.0.join(name)).collect();
        attache_import::import(ProxyKind::Nginx, &attache_import::read(&paths).unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PASS: &str = "proxy_pass http://app.internal:80;";

/// A whole config: directives of `http`, of the server, and of its location.
fn config(http: &str, server: &str, location: &str) -> String {
    format!(
        "events {{}}\nhttp {{ {http} server {{ listen 8080; {server} location / {{ {location} {PASS} }} }} }}"
    )
}

fn import(kind: ProxyKind, text: &str) -> Imported {
    attache_import::import(kind, &[File { path: "original.conf".into(), text: text.to_owned() }]).unwrap()
}

/// Routes that go to an upstream.
fn opened(imported: &Imported) -> usize {
    let lines = imported.text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter(|line| line.starts_with("to:") || line.contains("{ to: ")).count()
}

fn assert_closed(what: &str, imported: &Imported) {
    assert_eq!(opened(imported), 0, "{what}:\n{}", imported.text);
    assert_eq!(imported.grade, Grade::Point, "{what}:\n{}", imported.text);
}

#[test]
fn an_include_that_is_not_here_closes_its_level() {
    for include in [
        "include guards/*.conf;",
        "include /etc/nginx/guards/*.conf;",
        "include /srv/guards/*.conf;",
        "include guards/deny?.conf;",
        "include guards/[0-9]*;",
        "include guards/mime.types;",
        "include /srv/proxy_params;",
        "include modules-enabled/*.conf;",
        "include ../guards.conf;",
        "include ../*.conf;",
    ] {
        for text in [config(include, "", ""), config("", include, ""), config("", "", include)] {
            let imported = import(ProxyKind::Nginx, &text);
            assert_closed(&text, &imported);
            let told =
                |remark: &attache_import::Remark| remark.text.contains("as further arguments of the import");
            assert!(imported.remarks.iter().any(told), "{}", imported.text);
        }
    }
    let outside = format!("include guards/*.conf; {}", config("", "", ""));
    assert_closed(&outside, &import(ProxyKind::Nginx, &outside));
}

#[test]
fn a_pattern_without_a_match_includes_nothing() {
    let folder = Folder::new("none")
        .with("nginx.conf", config("include conf.d/*.conf; include sites*/*;", "", ""))
        .with("conf.d/README", "deny all;")
        .with("conf.d/.hidden.conf", "deny all;");
    let imported = folder.import(&["nginx.conf"]);
    assert_eq!((opened(&imported), imported.grade), (1, Grade::Nothing), "{}", imported.text);
    assert!(imported.text.contains("`include conf.d/*.conf` matches no file"), "{}", imported.text);
    // Without `nginx.conf` nobody knows to which folder the path is relative.
    let part = format!("server {{ listen 8080; location / {{ include deny*.conf; {PASS} }} }}");
    let folder = Folder::new("part").with("conf.d/site.conf", &part);
    assert_closed("no nginx.conf", &folder.import(&["conf.d/site.conf"]));
    let folder = folder.with("nginx.conf", "");
    assert_eq!(opened(&folder.import(&["conf.d/site.conf"])), 1);
    let folder = folder.with("deny1.conf", "deny all;");
    assert_eq!(opened(&folder.import(&["conf.d/site.conf"])), 0);
}

#[test]
fn every_file_of_a_pattern_is_read() {
    for (include, name) in [
        ("guards/*", "10-deny"),
        ("guards/*-*", "10-deny-all"),
        ("guards/[0-9]?-*.conf", "10-deny.conf"),
        ("g*s/*.conf", "deny.conf"),
        ("/etc/nginx/guards/*.conf", "deny.conf"),
        ("/etc/nginx/guards/deny.conf", "deny.conf"),
    ] {
        let folder = Folder::new("patterns")
            .with("nginx.conf", config("", "", &format!("include {include};")))
            .with(&format!("guards/{name}"), "deny all;");
        let imported = folder.import(&["nginx.conf"]);
        assert_eq!(opened(&imported), 0, "{include}:\n{}", imported.text);
        assert!(imported.grade < Grade::Point, "{include}:\n{}", imported.text);
    }
    let own = Folder::new("absolute").with("guards/deny.conf", "deny all;");
    let include = format!("include {}/guards/*.conf;", own.0.display());
    let own = own.with("nginx.conf", config(&include, "", ""));
    assert!(own.import(&["nginx.conf"]).text.contains("403"));
}

#[test]
fn a_file_that_can_not_be_read_closes_what_includes_it() {
    let site = config("include guards/*.conf;", "", "");
    let folder = Folder::new("bytes")
        .with("nginx.conf", &site)
        .with("guards/10.conf", "# nothing")
        .with("guards/20.conf", b"# caf\xe9\ndeny all;");
    assert_closed("bytes that are not UTF-8", &folder.import(&["nginx.conf"]));
    let folder = Folder::new("link").with("nginx.conf", &site).with("guards/10.conf", "# nothing");
    std::os::unix::fs::symlink("/nowhere/deny.conf", folder.0.join("guards/20.conf")).unwrap();
    assert_closed("a link to a file that is not here", &folder.import(&["nginx.conf"]));
    let folder = Folder::new("dir").with("nginx.conf", &site).with("guards/10.conf/x", "deny all;");
    assert_closed("a folder", &folder.import(&["nginx.conf"]));
    let folder = Folder::new("broken").with("nginx.conf", &site).with("guards/10.conf", "deny all; }");
    assert_closed("a file that is not valid", &folder.import(&["nginx.conf"]));
}

#[test]
fn a_file_is_read_at_every_place_that_includes_it() {
    let server = format!("location /admin/ {{ include deny.conf; {PASS} }}");
    let folder = Folder::new("twice")
        .with("nginx.conf", config("", &server, "include deny.conf;"))
        .with("parts/deny.conf", "deny all;");
    let imported = folder.import(&["nginx.conf", "parts/deny.conf"]);
    assert_eq!(opened(&imported), 0, "{}", imported.text);
    assert!(imported.grade < Grade::Point, "{}", imported.text);
}

#[test]
fn given_files_belong_to_the_include_with_their_folder() {
    let server = format!("location /b/ {{ include b/guard.conf; {PASS} }}");
    let folder = Folder::new("folders")
        .with("nginx.conf", config("", &server, "include a/guard.conf;"))
        .with("parts/a/guard.conf", "# nothing")
        .with("parts/b/guard.conf", "deny all;");
    for names in [
        ["nginx.conf", "parts/a/guard.conf", "parts/b/guard.conf"],
        ["nginx.conf", "parts/b/guard.conf", "parts/a/guard.conf"],
    ] {
        let imported = folder.import(&names);
        assert_eq!(opened(&imported), 1, "{}", imported.text);
        assert!(!imported.text.contains("closed:"), "{}", imported.text);
    }
    // Without the folder, either could be meant.
    let folder = folder.with("nginx.conf", config("", "", "include guard.conf;"));
    assert_closed("several", &folder.import(&["nginx.conf", "parts/a/guard.conf", "parts/b/guard.conf"]));
    // A given file of a pattern doesn't hide the others in the config's folder.
    let folder = Folder::new("both")
        .with("nginx.conf", config("include guards/*.conf;", "", ""))
        .with("guards/a.conf", "# nothing")
        .with("guards/b.conf", "deny all;");
    assert_eq!(opened(&folder.import(&["nginx.conf", "guards/a.conf"])), 0);
}

#[test]
fn files_of_a_pattern_come_in_the_order_of_their_names() {
    let folder = Folder::new("order")
        .with("nginx.conf", config("include guards/*;", "", ""))
        .with("guards/1", "deny 10.0.0.1;")
        .with("guards/2", "allow all;");
    let one = folder.import(&["nginx.conf", "guards/2", "guards/1"]);
    assert!(one.text.contains("10.0.0.1"), "{}", one.text);
}

#[test]
fn files_that_include_themselves_end_with_a_refusal() {
    let folder = Folder::new("circle")
        .with("nginx.conf", config("include a.conf;", "", ""))
        .with("a.conf", "include a.conf;");
    assert_closed("itself", &folder.import(&["nginx.conf"]));
    assert_closed("itself, given", &folder.import(&["nginx.conf", "a.conf"]));
    let many = "include b*.conf;".repeat(20);
    let mut folder = Folder::new("many").with("nginx.conf", config(&many, "", ""));
    for index in 0..9 {
        folder = folder.with(&format!("b{index}.conf"), &many);
    }
    assert_closed("each other", &folder.import(&["nginx.conf"]));
    let mut folder =
        Folder::new("deep").with("nginx.conf", config("include c0;", "", "")).with("c20", "deny all;");
    for index in 0..20 {
        folder = folder.with(&format!("c{index}"), format!("include c{};", index + 1));
    }
    assert_closed("deep", &folder.import(&["nginx.conf"]));
}

/// A file of a server may name hosts and addresses: their requests must not reach the default server.
#[test]
fn hosts_that_an_unread_file_may_name_do_not_reach_another_server() {
    let text = |first: &str, second: &str| {
        format!(
            "events {{}} http {{ server {{ listen 8080; server_name {first}; location / {{ {PASS} }} }} server {{ listen 8081; {second} location / {{ {PASS} }} }} }}"
        )
    };
    let imported = import(ProxyKind::Nginx, &text("a.test *.b.test", "include names.conf;"));
    assert_eq!(opened(&imported), 1, "{}", imported.text);
    let route = imported.text.find("to: app").unwrap();
    let before =
        imported.text[..route].rfind("hosts:").or_else(|| imported.text[..route].rfind("host:")).unwrap();
    assert!(imported.text[before..route].contains("a.test"), "{}", imported.text);
    assert_closed("default", &import(ProxyKind::Nginx, &text("_", "include names.conf;")));
    // A file of a location has no names.
    let inner = format!("location /x {{ include names.conf; {PASS} }}");
    assert_eq!(opened(&import(ProxyKind::Nginx, &text("_", &inner))), 2);
}

#[test]
fn files_of_nginx_itself_are_known_by_their_names() {
    for (http, location, grade) in [
        ("include mime.types;", "", Grade::Nothing),
        ("include /etc/nginx/mime.types;", "include fastcgi_params;", Grade::Nothing),
        ("", "include proxy_params;", Grade::Soft),
    ] {
        let imported = import(ProxyKind::Nginx, &config(http, "", location));
        assert_eq!((opened(&imported), imported.grade), (1, grade), "{}", imported.text);
    }
    let modules = format!("include /etc/nginx/modules-enabled/*.conf; {}", config("", "", ""));
    assert_eq!(opened(&import(ProxyKind::Nginx, &modules)), 1);
    // A file of that name that is here is read.
    let folder = Folder::new("mime")
        .with("nginx.conf", config("include mime.types;", "", ""))
        .with("mime.types", "types { text/html html; } deny all;");
    assert_eq!(opened(&folder.import(&["nginx.conf"])), 0);
}

#[test]
fn other_blocks_with_a_missing_file_are_closed_or_reported() {
    let streams = [
        "stream { include guards/*.conf; server { listen 9000; proxy_pass a.internal:1; } }",
        "stream { server { listen 9000; include guards/*.conf; proxy_pass a.internal:1; } }",
        "stream { map $ssl_preread_server_name $to { include names.map; default a.internal:1; } server { listen 9000; ssl_preread on; proxy_pass $to; } }",
    ];
    for text in streams {
        assert_closed(text, &import(ProxyKind::Nginx, text));
    }
    let only = "events {} stream { include streams/*.conf; } http { server { listen 8080; location / { return 200 x; } } }";
    assert_eq!(import(ProxyKind::Nginx, only).grade, Grade::Point);
    let upstream = "upstream app { include servers.conf; server a.internal:80; }";
    let imported = import(ProxyKind::Nginx, &config(upstream, "", "").replace("app.internal:80", "app"));
    assert_eq!(imported.grade, Grade::Point, "{}", imported.text);
    // Nothing but an include: the error names it.
    let file = File { path: "nginx.conf".into(), text: "http { include sites/*; }".to_owned() };
    let error = attache_import::import(ProxyKind::Nginx, &[file]).unwrap_err().to_string();
    assert!(error.starts_with("nginx.conf:1") && error.contains("sites/*"), "{error}");
}

#[test]
fn a_rate_limit_whose_zone_is_in_another_file_closes_its_location() {
    assert_closed("limit_req", &import(ProxyKind::Nginx, &config("", "", "limit_req zone=a;")));
    let zones = "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/s; limit_req_zone $server_name zone=b:1m rate=9r/s;";
    let imported = import(ProxyKind::Nginx, &config(zones, "", "limit_req zone=a; limit_req zone=b;"));
    assert_eq!(imported.grade, Grade::Point, "{}", imported.text);
}

#[test]
fn keys_of_stunnel_and_ghostunnel_that_may_refuse_close_their_service() {
    let service = "[in]\naccept = 8443\nconnect = 8080\ncert = /c.pem\nCAfile = /ca.pem\nverifyChain = yes\n";
    assert_eq!(opened(&import(ProxyKind::Stunnel, service)), 1);
    assert_eq!(opened(&import(ProxyKind::Stunnel, &format!("{service}libwrap = no\nretry = yes\n"))), 1);
    for line in [
        "include = /etc/stunnel/conf.d",
        "libwrap = yes",
        "OCSP = http://ocsp.test/",
        "OCSPaia = yes",
        "ident = user",
        "guardOfTomorrow = yes",
    ] {
        assert_closed(line, &import(ProxyKind::Stunnel, &format!("{service}{line}\n")));
        assert_closed(line, &import(ProxyKind::Stunnel, &format!("{line}\n{service}")));
    }
    let flags =
        "ghostunnel server --listen :8443 --target localhost:80 --cert /c --key /k --cacert /ca --allow-cn a";
    assert_eq!(opened(&import(ProxyKind::Ghostunnel, flags)), 1);
    assert_closed("flag", &import(ProxyKind::Ghostunnel, &format!("{flags} --guard-of-tomorrow x")));
}

#[test]
fn sections_of_haproxy_within_a_condition_are_closed() {
    let web = "frontend in\n mode http\n bind :8080\n default_backend app\n";
    let app = "backend app\n mode http\n server a app.internal:80\n";
    assert_eq!(opened(&import(ProxyKind::Haproxy, &format!("{web}{app}"))), 1);
    for text in [
        format!(".if defined(X)\n{web}.endif\n{app}"),
        format!(".if defined(X)\n{web}cache c\n.endif\n{app}"),
        format!("{app}.if defined(X)\n{web}resolvers r\n.endif\n"),
    ] {
        assert_closed(&text, &import(ProxyKind::Haproxy, &text));
    }
}

/// The lines of a `crt-list` can have `verify required`.
#[test]
fn an_address_of_haproxy_with_a_list_of_certificates_is_closed() {
    for words in ["crt-list /etc/certs.txt", "crt /c.pem crt-list /etc/certs.txt"] {
        let text = format!(
            "frontend in\n mode http\n bind :8443 ssl {words}\n default_backend app\nbackend app\n mode http\n server a app.internal:80\n"
        );
        assert_closed(words, &import(ProxyKind::Haproxy, &text));
    }
}

/// No import depends on files elsewhere on this machine.
#[test]
fn the_folder_of_a_config_is_the_only_one_that_is_read() {
    let outside = Folder::new("outside").with("deny.conf", "# nothing");
    let folder = Folder::new("inside");
    let include = format!("include {}/*.conf;", outside.0.display());
    let folder = folder.with("nginx.conf", config(&include, "", ""));
    assert_closed(&include, &folder.import(&["nginx.conf"]));
}
