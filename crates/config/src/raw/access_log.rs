//! `access_log:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Map, OneOrMany, Txt};
use crate::{
    model,
    text::{
        File, Label, LogPath, LogTemplateText, Positive, Ratio, Size, StatusRangeText, SyslogAddress, Word,
    },
};

/// The access log: its target alone, or with its format and filter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AccessLogForm {
    To(Txt<LogPath>),
    Full(Box<AccessLog>),
}

/// The access log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`access_log`")]
pub(crate) struct AccessLog {
    /// Where it goes: `stdout`, `off`, `syslog` (`/dev/log`), the path of a file that is appended to, or a mapping.
    pub(crate) to: LogTo,
    /// What a line says: `text`, `json`, or a mapping with a template of one's own.
    #[schemars(extend("default" = "text"))]
    pub(crate) format: Option<LogFormatForm>,
    /// Which lines are written: those for which everything here holds; of a list, those for which one item does.
    #[schemars(extend("examples" = [[{ "errors": true }, { "slower_than": "1s" }, { "sample": "1%" }]]))]
    pub(crate) filter: Option<OneOrMany<At<LogFilter>>>,
}

/// A target: a word or path, a file with its rotation, a syslog server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum LogTo {
    Path(Txt<LogPath>),
    Mapping(Box<At<LogTarget>>),
}

/// A target with its options: a file or a syslog server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`to` of the access log")]
pub(crate) struct LogTarget {
    /// The path of a file that is appended to.
    #[schemars(extend("examples" = ["/var/log/attache/access.log"]))]
    pub(crate) file: Option<At<Txt<File>>>,
    /// A file that would grow beyond this is put aside as `FILE.1`, and that as `FILE.2`. By default it is left to others, who
    /// rename it and send SIGUSR1.
    #[schemars(extend("examples" = ["100MiB"]))]
    pub(crate) max_size: Option<At<Txt<Size>>>,
    /// A file older than this is put aside.
    #[schemars(extend("examples" = ["24h"]))]
    pub(crate) max_age: Option<At<Txt<Positive>>>,
    /// Files put aside that are kept.
    #[schemars(range(min = 1, max = 1000), extend("default" = model::LogFile::KEEP))]
    pub(crate) keep: Option<At<u32>>,
    /// A syslog server, in place of `file`: messages by RFC 5424 over a Unix datagram socket, UDP, or TCP with octet counting
    /// (RFC 6587).
    pub(crate) syslog: Option<At<Txt<SyslogAddress>>>,
    /// Facility of the messages.
    #[schemars(extend("default" = model::Facility::default()))]
    pub(crate) facility: Option<At<model::Facility>>,
    /// `APP-NAME` of the messages.
    #[schemars(extend("default" = model::Syslog::APP))]
    pub(crate) app: Option<At<Txt<Label>>>,
}

/// A format: a word or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum LogFormatForm {
    Word(LogFormatWord),
    Own(Box<At<OwnFormat>>),
}

/// Formats that are there already.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormatWord {
    /// One readable line.
    Text,
    /// One JSON object a line, with every field.
    Json,
}

/// A format of one's own. The fields are those of [access-log.md](access-log.md).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`format` of the access log")]
pub(crate) struct OwnFormat {
    /// A line of text.
    pub(crate) template: Option<Txt<LogTemplateText>>,
    /// A JSON object: its keys, each with a template. One field and nothing else keeps its type, so that numbers are numbers.
    #[schemars(extend("examples" = [{ "code": "%{status}", "took": "%{total_ms}" }]))]
    pub(crate) json: Option<Map<Word, Txt<LogTemplateText>>>,
}

/// Which lines are written: those for which everything that is said holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`filter` of the access log")]
pub(crate) struct LogFilter {
    /// Only what attache failed, or what was answered with 5xx.
    #[schemars(extend("default" = false))]
    pub(crate) errors: Option<bool>,
    /// Only these statuses.
    #[schemars(extend("examples" = [["5xx", 404]]))]
    pub(crate) status: Option<OneOrMany<Txt<StatusRangeText>>>,
    /// Only what took at least this long.
    #[schemars(extend("examples" = ["500ms"]))]
    pub(crate) slower_than: Option<Txt<Positive>>,
    /// Only what went by these routes.
    pub(crate) routes: Option<OneOrMany<At<Txt<Label>>>>,
    /// Only this share, at random.
    #[schemars(extend("examples" = ["1%"]))]
    pub(crate) sample: Option<Txt<Ratio>>,
}
