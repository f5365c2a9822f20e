//! Access log, and the application on the metrics port.

use crate::{
    diagnostic::Problems,
    index::FirstByKey,
    model::{
        AccessLog, Adapter, Expect, Listener, LogFilter, LogFormat, LogFormatForm, LogFormatWord, LogOutput,
        LogTarget, LogTo,
    },
    section::{ParsedSection, Shorthand},
    shapes::{NamedEntry, OneOrMany, Spanned},
    suggest,
};

pub(crate) fn access_log(
    raw: Option<Shorthand<AccessLog>>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> AccessLog {
    let Some(Shorthand(raw)) = raw else { return AccessLog::default() };
    let ParsedSection { section: mut log, rest } = raw.value;
    log.to = match rest.to {
        None => LogTarget::Off,
        Some(LogTo::Path(to)) => to.0,
        Some(LogTo::Mapping(output)) => log_target(output),
    };
    if let Some(format) = rest.format {
        log.format = log_format(format, problems);
    }
    for filter in rest.filter.map(OneOrMany::into_vec).unwrap_or_default() {
        log.filter.extend(log_filter(filter, listeners, problems));
    }
    log
}

fn log_target(raw: Spanned<ParsedSection<LogOutput>>) -> LogTarget {
    let syslog = raw.key("syslog").is_some();
    let output = raw.value.section;
    if syslog { LogTarget::Syslog(output.syslog) } else { LogTarget::File(output.file) }
}

fn log_format(raw: LogFormatForm, problems: &mut Problems) -> LogFormat {
    let own = match raw {
        LogFormatForm::Word(LogFormatWord::Text) => return LogFormat::Text,
        LogFormatForm::Word(LogFormatWord::Json) => return LogFormat::Json,
        LogFormatForm::Own(own) => own,
    };
    if let (Some(at), Some([])) = (own.key("json"), own.value.json.as_deref()) {
        problems.wrong(at, "a format without a field", "such as `{ json: { code: \"%{status}\" } }`");
    }
    let own = own.value;
    own.template.map_or_else(|| LogFormat::Fields(own.json.unwrap_or_default()), LogFormat::Template)
}

fn log_filter(
    raw: Spanned<ParsedSection<LogFilter>>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> Option<LogFilter> {
    let (given, ParsedSection { section: mut filter, rest }) = raw.open();
    let known = || listeners.iter().flat_map(|listener| &listener.routes).map(|route| &*route.name);
    let index: FirstByKey<&str, ()> = known().map(|name| (name, ())).collect();
    let mut unknown = false;
    for name in rest.routes.map(OneOrMany::into_vec).unwrap_or_default() {
        let route = name.value.0;
        if !index.has(&*route) {
            unknown = true;
            let help = match suggest::nearest(&route, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "a route has the name that its key `name` gives".into(),
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
pub(crate) fn adapter(entry: NamedEntry<Spanned<ParsedSection<Adapter>>>) -> Adapter {
    let (given, ParsedSection { section, .. }) = entry.value.open();
    let checks = Expect::KEYS.iter().any(|key| given.key(key).is_some());
    Adapter { path: entry.key.into(), checks, ..section }
}
