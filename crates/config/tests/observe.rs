//! Access log, traces and the application's metrics, from text to model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use attache_config::{
    Diagnostics,
    model::{
        Config, ExportProtocol, Facility, LogField, LogFormat, LogPart, LogTarget, LogTemplate,
        OtlpCompression, Propagation, SyslogTo,
    },
};

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Diagnostics> {
    let text = format!("upstreams: {{ orders: 'http://127.0.0.1:1' }}\n{text}\n");
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    attache_config::parse(&text, None, &env)
}

fn parse(text: &str) -> Config {
    parse_with(text, &[]).unwrap_or_else(|found| panic!("{text}\n{}", found.display(false)))
}

fn wrong(text: &str) -> String {
    parse_with(text, &[]).unwrap_err().display(false).to_string()
}

#[test]
fn an_access_log_is_a_word_or_says_everything() {
    let config = parse("access_log: stdout");
    assert_eq!(config.access_log.to, LogTarget::Stdout);
    let config = parse(
        "access_log:\n  to: { file: /var/log/a.log, max_size: 10MiB, max_age: 24h, keep: 3 }\n  format: { json: { code: '%{status}', ua: '%{request.header.user-agent}' } }\n  filter: [{ errors: true }, { slower_than: 1s, sample: 10% }, { status: [404, 5xx], routes: outbound/0 }]",
    );
    let LogTarget::File(file) = &config.access_log.to else { panic!("{config:?}") };
    assert_eq!((file.max_size, file.max_age, file.keep), (Some(10 << 20), Some(Duration::from_hours(24)), 3));
    let LogFormat::Fields(fields) = &config.access_log.format else { panic!("{config:?}") };
    assert_eq!(fields[0], ("code".into(), LogTemplate(vec![LogPart::Field(LogField::Status)])));
    assert_eq!(config.access_log.filter.len(), 3);
    assert_eq!(config.access_log.filter[1].sample, Some(0.1));
    let config = parse("access_log: { to: { syslog: 'tcp://logs:6514', facility: local7, app: shop } }");
    let LogTarget::Syslog(syslog) = &config.access_log.to else { panic!("{config:?}") };
    assert_eq!(
        (&syslog.to, syslog.facility, &*syslog.app),
        (&SyslogTo::Tcp("logs:6514".into()), Facility::Local7, "shop")
    );
}

#[test]
fn contradictions_in_an_access_log_are_reported() {
    assert!(
        wrong("access_log: { to: { file: /a, syslog: 'unix:/dev/log' } }")
            .contains("both `file` and `syslog`")
    );
    assert!(
        wrong("access_log: { to: { syslog: 'unix:/dev/log', keep: 3 } }")
            .contains("`keep` belongs to `file`")
    );
    assert!(wrong("access_log: { to: { file: /a, keep: 3 } }").contains("never rotated"));
    assert!(wrong("access_log: { to: stdout, filter: { routes: ordesr } }").contains("no route is called"));
    assert!(wrong("access_log: { to: stdout, filter: {} }").contains("has no condition"));
    assert!(wrong("access_log: { to: stdout, format: { template: '%{stauts}' } }").contains("%{status}"));
}

#[test]
fn traces_go_where_the_file_says_before_where_the_environment_says() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318/base"),
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=web%2D1,service.name=no, team = a"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s%20ecret"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_PROPAGATORS", "b3,tracecontext,baggage"),
    ];
    let tracing = parse_with("tracing: {}", &env).unwrap().tracing.unwrap();
    assert_eq!(
        (&*tracing.collector.host, tracing.collector.port, &*tracing.collector.path),
        ("env", 4318, "/base/v1/traces")
    );
    assert_eq!(
        (&*tracing.collector.service, tracing.collector.protocol),
        ("shop", ExportProtocol::HttpProtobuf)
    );
    assert!((tracing.sample - 0.25).abs() < 1e-9);
    assert_eq!(
        tracing.collector.resource,
        [("k8s.pod.name".into(), "web-1".into()), ("team".into(), "a".into())]
    );
    assert_eq!(tracing.collector.headers[0].1, "s ecret");
    assert!(!format!("{tracing:?}").contains("ecret"), "keys are never shown");
    assert_eq!(tracing.propagation, [Propagation::B3, Propagation::TraceContext]);

    let text =
        "tracing: { otlp: 'http://c:4317', sample: 100%, service: mine, headers: {}, propagation: b3multi }";
    let tracing = parse_with(text, &env).unwrap().tracing.unwrap();
    assert_eq!(
        (&*tracing.collector.host, tracing.collector.port, tracing.collector.protocol),
        ("c", 4317, ExportProtocol::Grpc)
    );
    assert_eq!(&*tracing.collector.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert!(tracing.collector.headers.is_empty() && &*tracing.collector.service == "mine");
    assert_eq!(tracing.propagation, [Propagation::B3Multi]);
    assert!((tracing.sample - 1.0).abs() < 1e-9);
}

#[test]
fn without_the_key_there_are_no_traces_whatever_the_environment_says() {
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318")];
    assert_eq!(parse_with("", &env).unwrap().tracing, None);
    assert_eq!(parse("tracing: 'off'").tracing, None);
    let tracing = parse("tracing: {}").tracing.unwrap();
    assert_eq!(
        (&*tracing.collector.host, tracing.collector.port, tracing.collector.tls),
        ("localhost", 4318, None)
    );
    assert!(parse("tracing: https://c:4318").tracing.unwrap().collector.tls.is_some());
    let env = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://env:9/all/of/it")];
    assert_eq!(&*parse_with("tracing: {}", &env).unwrap().tracing.unwrap().collector.path, "/all/of/it");
    assert!(wrong("tracing: { otlp: 'http://c', tls: { ca: /a } }").contains("plaintext"));
}

#[test]
fn zipkin_gets_no_setting_that_the_environment_has_for_otlp() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let to = parse_with("tracing: { zipkin: 'http://z' }", &env).unwrap().tracing.unwrap().collector;
    assert_eq!((&*to.host, to.port, &*to.path), ("z", 9411, "/api/v2/spans"));
    assert_eq!((to.protocol, to.compression), (ExportProtocol::Zipkin, OtlpCompression::None));
    assert!(to.headers.is_empty());
    let text = "tracing: { zipkin: 'http://z:1/mine', compression: gzip, headers: { x-key: mine } }";
    let to = parse_with(text, &env).unwrap().tracing.unwrap().collector;
    assert_eq!((to.port, &*to.path, to.compression), (1, "/mine", OtlpCompression::Gzip));
    assert_eq!(to.headers[0].1, "mine");
    assert!(wrong("tracing: { zipkin: 'http://z', otlp: 'http://c' }").contains("one collector"));
    assert!(wrong("tracing: { zipkin: 'http://z', protocol: grpc }").contains("one collector"));
    assert!(wrong("otlp: { to: 'http://c', protocol: zipkin }").contains("protocol"));
}

#[test]
fn the_application_has_its_place_on_the_metrics_port() {
    let config = parse(
        "metrics:\n  bind: 127.0.0.1:0\n  app: ['http://127.0.0.1:8080/metrics', { from: 'http://localhost:8080/stats', gauges: { app_depth: /queue/depth } }]\n  adapt:\n    /app/health: { from: 'http://localhost:8080/status', json: { /status: UP, /db: true, /n: 3 }, failed: 500 }\n    /app/version: { from: 'http://localhost:8080/v' }",
    );
    assert_eq!(config.metrics, Some("127.0.0.1:0".parse().unwrap()));
    assert_eq!(config.app.metrics.len(), 2);
    assert_eq!(config.app.metrics[1].gauges, [("app_depth".into(), "/queue/depth".into())]);
    let expect = &config.app.adapt[0].expect;
    assert!(config.app.adapt[0].checks);
    assert_eq!(
        expect.json,
        [("/status".into(), "UP".into()), ("/db".into(), "true".into()), ("/n".into(), "3".into())]
    );
    assert_eq!((expect.ok.as_u16(), expect.failed.as_u16()), (200, 500));
    assert!(!config.app.adapt[1].checks);
    assert_eq!(parse("metrics: { app: 'http://localhost:1/m' }").metrics, Some(Config::METRICS));
    assert!(
        wrong("metrics: { bind: 'off', app: 'http://localhost:1/m' }")
            .contains("need the port of the metrics")
    );
    assert!(
        wrong("metrics: { adapt: { /readyz: { from: 'http://localhost:1' } } }").contains("attache's own")
    );
}
