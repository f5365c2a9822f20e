//! Access log, traces and what is told of the application, as the file would write them.

use serde_json::{Map, Value, json};

use super::{HIDDEN, without_query};
use crate::{
    model::{
        AccessLog, Adapt, AppTold, LogField, LogFilter, LogFormat, LogPart, LogTarget, LogTemplate,
        StatusRange, SyslogTo, Tracing,
    },
    text::{show_duration, show_ratio, show_size},
};

pub(super) fn access_log(log: &AccessLog) -> Value {
    let to = match &log.to {
        LogTarget::Off => "off".into(),
        LogTarget::Stdout => "stdout".into(),
        LogTarget::File(file) => json!({
            "path": file.path.display().to_string(),
            "max_size": file.max_size.map(show_size),
            "max_age": file.max_age.map(show_duration),
            "keep": file.keep,
        }),
        LogTarget::Syslog(syslog) => json!({
            "syslog": match &syslog.to {
                SyslogTo::Unix(path) => format!("unix:{}", path.display()),
                SyslogTo::Udp(at) => format!("udp://{at}"),
                SyslogTo::Tcp(at) => format!("tcp://{at}"),
            },
            "facility": syslog.facility,
            "app": &*syslog.app,
        }),
    };
    let format = match &log.format {
        LogFormat::Text => "text".into(),
        LogFormat::Json => "json".into(),
        LogFormat::Template(line) => template(line).into(),
        LogFormat::Fields(fields) => {
            Value::Object(fields.iter().map(|(key, to)| (key.to_string(), template(to).into())).collect())
        }
    };
    json!({ "to": to, "format": format, "filter": log.filter.iter().map(filter).collect::<Vec<_>>() })
}

fn template(template: &LogTemplate) -> String {
    let part = |part: &LogPart| match part {
        LogPart::Text(text) => text.to_string(),
        LogPart::Field(LogField::RequestHeader(name)) => format!("%{{request.header.{name}}}"),
        LogPart::Field(LogField::ResponseHeader(name)) => format!("%{{response.header.{name}}}"),
        LogPart::Field(field) => {
            let word = LogField::WORDS.iter().find(|(word, _)| LogField::of(word).as_ref() == Some(field));
            format!("%{{{}}}", word.map_or("", |(word, _)| word))
        }
    };
    template.0.iter().map(part).collect()
}

fn filter(filter: &LogFilter) -> Value {
    json!({
        "errors": filter.errors,
        "status": statuses(&filter.status),
        "slower_than": filter.slower_than.map(show_duration),
        "routes": filter.routes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sample": filter.sample.map(show_ratio),
    })
}

fn statuses(ranges: &[StatusRange]) -> Vec<String> {
    let shown = |range: &StatusRange| {
        if range.from == range.to { range.from.to_string() } else { format!("{}-{}", range.from, range.to) }
    };
    ranges.iter().map(shown).collect()
}

pub(super) fn app(app: &AppTold) -> Value {
    let metrics = app.metrics.iter().map(|page| {
        json!({
            "from": format!("http://{}{}", page.from.authority, without_query(&page.from.path)),
            "timeout": show_duration(page.timeout),
            "max_size": show_size(page.max_size as u64),
            "gauges": page.gauges.iter().map(|(name, at)| (name.to_string(), Value::from(&**at))).collect::<Map<_, _>>(),
        })
    });
    let adapt = app.adapt.iter().map(|adapter| {
        json!({
            "path": &*adapter.path,
            "from": format!("http://{}{}", adapter.from.authority, without_query(&adapter.from.path)),
            "timeout": show_duration(adapter.timeout),
            "expect": match &adapter.answer {
                Adapt::Pass => Value::Null,
                Adapt::Expect(expect) => json!({
                    "status": statuses(&expect.status),
                    "json": expect.json.iter().map(|(at, is)| (at.to_string(), Value::from(&**is))).collect::<Map<_, _>>(),
                    "ok": expect.ok.as_u16(),
                    "failed": expect.failed.as_u16(),
                }),
            },
        })
    });
    json!({
        "metrics": metrics.collect::<Vec<_>>(),
        "adapt": adapt.collect::<Vec<_>>(),
        "names": app.names,
        "workload": app.workload.as_deref(),
        "namespace": app.namespace.as_deref(),
    })
}

pub(super) fn tracing(tracing: &Tracing) -> Value {
    let scheme = if tracing.tls.is_some() { "https" } else { "http" };
    let resource = tracing.resource.iter().map(|(key, value)| (key.to_string(), Value::from(&**value)));
    json!({
        "endpoint": format!("{scheme}://{}:{}{}", tracing.host, tracing.port, without_query(&tracing.path)),
        "protocol": tracing.protocol,
        "ca": tracing.tls.as_ref().map(|tls| &tls.trust),
        // Headers of exports carry keys.
        "headers": tracing.headers.iter().map(|(name, _)| (name.to_string(), Value::from(HIDDEN))).collect::<Map<_, _>>(),
        "sample": show_ratio(tracing.sample),
        "service": &*tracing.service,
        "resource": resource.collect::<Map<_, _>>(),
        "propagation": tracing.propagation,
        "timeout": show_duration(tracing.timeout),
        "queue": tracing.queue,
        "interval": show_duration(tracing.interval),
    })
}
