//! Access log, and the application on the metrics port.

use crate::{
    diagnostic::Problems,
    index::Index,
    model::{
        AccessLog, Adapter, Expect, Listener, LogFilter, LogFormat, LogFormatForm, LogFormatWord, LogOutput,
        LogTarget, LogTo,
    },
    section::{Read, Short},
    shapes::{At, Entry, OneOrMany},
    suggest,
};

pub(crate) fn access_log(
    raw: Option<Short<AccessLog>>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> AccessLog {
    let Some(Short(raw)) = raw else { return AccessLog::default() };
    let Read { section: mut log, rest } = raw.value;
    log.to = match rest.to {
        None => LogTarget::Off,
        Some(LogTo::Path(to)) => to.0,
        Some(LogTo::Mapping(output)) => log_target(output, problems).unwrap_or_default(),
    };
    if let Some(format) = rest.format {
        log.format = log_format(format, problems);
    }
    for filter in rest.filter.map(OneOrMany::into_vec).unwrap_or_default() {
        log.filter.extend(log_filter(filter, listeners, problems));
    }
    log
}

fn log_target(raw: At<Read<LogOutput>>, problems: &mut Problems) -> Option<LogTarget> {
    let (given, Read { section: output, .. }) = raw.open();
    let mut misplaced = |keys: &[&str], owner: &str| {
        for key in keys {
            if let Some(at) = given.key(key) {
                let message = format!("`{key}` belongs to `{owner}`");
                problems.wrong(at, message, format!("remove it, or use `{owner}`"));
            }
        }
    };
    match (given.key("file"), given.key("syslog")) {
        (Some(_), None) => {
            misplaced(&["facility", "app"], "syslog");
            let rotates = output.file.max_size.is_some() || output.file.max_age.is_some();
            if let Some(at) = given.key("keep").filter(|_| !rotates) {
                let help = "add `max_size: 100MiB` or `max_age: 24h`, or remove `keep`";
                let message = "`keep` without `max_size` or `max_age`: the file is never rotated";
                problems.wrong(at, message, help);
            }
            Some(LogTarget::File(output.file))
        }
        (None, Some(_)) => {
            misplaced(&["max_size", "max_age", "keep"], "file");
            Some(LogTarget::Syslog(output.syslog))
        }
        (Some(_), Some(at)) => {
            problems.wrong(at, "both `file` and `syslog`", "keep one of them");
            None
        }
        (None, None) => {
            if given.whole() {
                problems.wrong(
                    given.at,
                    "this log has no destination",
                    "`to: { file: /var/log/access.log }` or `to: { syslog: unix:/dev/log }`",
                );
            }
            None
        }
    }
}

fn log_format(raw: LogFormatForm, problems: &mut Problems) -> LogFormat {
    let own = match raw {
        LogFormatForm::Word(LogFormatWord::Text) => return LogFormat::Text,
        LogFormatForm::Word(LogFormatWord::Json) => return LogFormat::Json,
        LogFormatForm::Own(own) => own,
    };
    let (given, own) = own.open();
    match (own.template, own.json) {
        (Some(template), None) => LogFormat::Template(template),
        (None, Some(fields)) if !fields.is_empty() => LogFormat::Fields(fields),
        (template, _) => {
            if given.whole() {
                let both = template.is_some();
                let what = if both { "both `template` and `json`" } else { "a format without a field" };
                let help = "`{ template: \"%{status} %{path}\" }` or `{ json: { code: \"%{status}\" } }`";
                problems.wrong(given.at, what, help);
            }
            LogFormat::default()
        }
    }
}

fn log_filter(
    raw: At<Read<LogFilter>>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> Option<LogFilter> {
    let (given, Read { section: mut filter, rest }) = raw.open();
    let known = || listeners.iter().flat_map(|listener| &listener.routes).map(|route| &*route.name);
    let index: Index<&str, ()> = known().map(|name| (name, ())).collect();
    let mut unknown = false;
    for name in rest.routes.map(OneOrMany::into_vec).unwrap_or_default() {
        let route = name.value.0;
        if !index.has(&*route) {
            unknown = true;
            let help = match suggest::nearest(&route, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "the name of a route, which it has by `name:`".into(),
            };
            problems.wrong(name.at, format!("no route is called `{route}`"), help);
        }
        filter.routes.push(route);
    }
    if filter == LogFilter::default() && given.whole() && !unknown {
        problems.wrong(
            given.at,
            "this filter has no condition, so everything is logged",
            "remove it, or say for example `errors: true`",
        );
        return None;
    }
    Some(filter)
}

/// An endpoint of the application at this path.
pub(crate) fn adapter(entry: Entry<At<Read<Adapter>>>) -> Adapter {
    let (given, Read { section, .. }) = entry.value.open();
    let checks = Expect::KEYS.iter().any(|key| given.key(key).is_some());
    Adapter { path: entry.key.into(), checks, ..section }
}
