//! Log records in the queue, and their conversion to OTLP's messages.

use std::time::{Duration, SystemTime};

use attache_config::model::Name;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
};

use super::attributes::{Attributes, nanos, version_word};
use crate::{Exchange, SpanId, TraceId, snapshot::ExchangeSnapshot};

/// The name of the event for a finished exchange.
const ENDED: &str = "attache.exchange.ended";

/// One record in the queue.
#[derive(Debug)]
pub(super) enum OtlpRecord {
    /// A finished exchange.
    Ended(Box<FinishedExchange>),
    /// A line of the program's own log.
    ProgramLine(Box<ProgramLine>),
}

/// A line of the program's own log.
#[derive(Debug)]
pub(super) struct ProgramLine {
    pub(super) at: SystemTime,
    pub(super) severity: SeverityNumber,
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, String)>,
}

/// A finished exchange.
#[derive(Debug)]
pub(super) struct FinishedExchange {
    at: SystemTime,
    exchange: ExchangeSnapshot,
    secure: bool,
    endpoint: Option<Name>,
    identity: Option<Name>,
    outcome: u16,
    grpc_status: Option<u8>,
    trace: Option<TraceId>,
    span: Option<SpanId>,
}

impl OtlpRecord {
    pub(super) fn of(exchange: &Exchange, total: Duration) -> Self {
        Self::Ended(Box::new(FinishedExchange {
            at: SystemTime::now(),
            exchange: ExchangeSnapshot::of(exchange, total),
            secure: exchange.secure.get(),
            endpoint: exchange.endpoint.borrow().clone(),
            identity: exchange.identity.borrow().clone(),
            outcome: exchange.outcome(),
            grpc_status: exchange.grpc_status.get(),
            trace: exchange.trace_id.get(),
            span: exchange.trace.borrow().as_ref().map(|trace| trace.span_id()),
        }))
    }

    /// The record in OTLP's form.
    pub(super) fn converted(&self) -> LogRecord {
        match self {
            Self::Ended(ended) => ended.converted(),
            Self::ProgramLine(own) => own.converted(),
        }
    }
}

impl ProgramLine {
    fn converted(&self) -> LogRecord {
        let mut about = Attributes::default();
        about.text("attache.module", self.target);
        for (name, value) in &self.fields {
            about.text(&format!("attache.{name}"), value);
        }
        LogRecord { attributes: about.0, ..record(self.at, self.severity, self.message.clone()) }
    }
}

impl FinishedExchange {
    fn converted(&self) -> LogRecord {
        let mut about = Attributes::default();
        if !self.exchange.method.is_empty() {
            about.method(&self.exchange.method);
        }
        about.text(
            "url.scheme",
            match (version_word(self.exchange.protocol), self.secure) {
                ("", _) => "",
                (_, true) => "https",
                (_, false) => "http",
            },
        );
        about.text("url.path", &self.exchange.path);
        about.server(&self.exchange.host, self.secure);
        about.text("network.protocol.version", version_word(self.exchange.protocol));
        if let Some(client) = self.exchange.client {
            about.text("client.address", &client.ip().to_string());
            about.number("client.port", client.port().into());
        }
        about.number("http.request.body.size", self.exchange.received);
        about.number("http.response.body.size", self.exchange.sent);
        if self.exchange.status != 0 {
            about.number("http.response.status_code", self.exchange.status.into());
        }
        if let Some(status) = self.grpc_status {
            about.number("rpc.grpc.status_code", status.into());
        }
        let failed = self.exchange.reason.is_some() || self.outcome >= 500;
        if failed {
            about.error(self.exchange.reason, self.outcome);
        }
        about.text("attache.listener", &self.exchange.listener);
        about.text("attache.protocol", self.exchange.protocol);
        for (name, value) in [
            ("attache.route", &self.exchange.route),
            ("attache.upstream", &self.exchange.upstream),
            ("attache.endpoint", &self.endpoint),
            ("attache.identity", &self.identity),
        ] {
            about.text(name, value.as_deref().unwrap_or_default());
        }
        about.text("attache.request_id", &self.exchange.request_id);
        about.number("attache.attempts", self.exchange.attempts.into());
        about.seconds("attache.duration", self.exchange.total);
        about.reason(self.exchange.reason);
        about.text("attache.detail", self.exchange.detail.as_deref().unwrap_or_default());
        // An error of the client is not an error of the service.
        let error = failed && !(400..500).contains(&self.outcome);
        let severity = if error { SeverityNumber::Error } else { SeverityNumber::Info };
        let what =
            if self.exchange.method.is_empty() { self.exchange.protocol } else { &self.exchange.method };
        let mut body =
            format!("{what} {}{} {}", self.exchange.host, self.exchange.path, self.exchange.status);
        if let Some(reason) = self.exchange.reason {
            body = format!("{body} {reason}");
        }
        LogRecord {
            attributes: about.0,
            event_name: ENDED.into(),
            trace_id: self.trace.map(|trace| trace.0.to_be_bytes().to_vec()).unwrap_or_default(),
            span_id: self.span.map(|span| span.0.to_be_bytes().to_vec()).unwrap_or_default(),
            flags: u32::from(self.span.is_some()),
            ..record(self.at, severity, body)
        }
    }
}

fn record(at: SystemTime, severity: SeverityNumber, body: String) -> LogRecord {
    let text = match severity {
        SeverityNumber::Error => "ERROR",
        SeverityNumber::Warn => "WARN",
        SeverityNumber::Debug => "DEBUG",
        SeverityNumber::Trace => "TRACE",
        _ => "INFO",
    };
    LogRecord {
        time_unix_nano: nanos(at),
        observed_time_unix_nano: nanos(at),
        severity_number: severity.into(),
        severity_text: text.into(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        ..LogRecord::default()
    }
}
