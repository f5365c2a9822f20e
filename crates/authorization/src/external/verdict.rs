//! An authorizer's decision, and its changes.

use attache_config::model::{Authorizer, HeaderMatch};
use attache_http::{remove_fields, strip_response};
use attache_rpc::CallResponse;
use attache_wire::{
    Fields, RequestHead,
    header::{X_ATTACHE_REASON, X_ATTACHE_UPSTREAM_REASON},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use prost::Message;

use super::{
    messages::{self as m, CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse},
    query,
    question::is_of_the_message,
};

/// An authorizer's decision.
#[derive(Debug)]
pub enum AuthorizerVerdict {
    /// The request goes on, with these changes.
    Granted(Box<AllowedChanges>),
    /// The client gets this denial.
    Denied(Box<Denial>),
}

/// The answer to the client of a denied request.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// Its status, 200 to 599.
    pub status: StatusCode,
    /// Its fields, in their order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
    /// The authorizer's message for the operator, or why it was not asked.
    pub detail: String,
}

/// The changes of an allowed request and of its response.
#[derive(Debug, Default)]
pub struct AllowedChanges {
    headers: Vec<AuthorizerEdit>,
    remove: Vec<HeaderName>,
    response: Vec<AuthorizerEdit>,
    set_query: Vec<(String, String)>,
    remove_query: Vec<String>,
}

/// One field.
#[derive(Debug)]
struct AuthorizerEdit {
    name: HeaderName,
    value: HeaderValue,
    how: AppendAction,
}

/// `HeaderValueOption.HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppendAction {
    Append,
    AddIfAbsent,
    Overwrite,
    OverwriteIfExists,
}

impl AuthorizerVerdict {
    /// Reads the bytes of a `CheckResponse`, without gRPC's frame.
    ///
    /// # Errors It isn't a `CheckResponse`, or its changes aren't possible.
    pub fn of_bytes(message: &[u8], config: &Authorizer) -> Result<Self, String> {
        let answer = CheckResponse::decode(message).map_err(|error| error.to_string())?;
        Self::of_message(answer, config)
    }

    /// The denial in the form for the client of this request. For a CONNECT a 2xx status would mean that the tunnel is
    /// open (RFC 9110 section 9.3.6, RFC 8441 section 5).
    pub(super) fn to(mut self, request: Option<&RequestHead>) -> Self {
        if let Self::Denied(denial) = &mut self
            && request.is_some_and(|request| request.method == Method::CONNECT)
            && denial.status.is_success()
        {
            denial.status = StatusCode::FORBIDDEN;
        }
        self
    }

    pub(super) fn of_message(answer: CheckResponse, config: &Authorizer) -> Result<Self, String> {
        // A message without a status has status 0, OK: that is how services allow requests.
        let status = answer.status.unwrap_or_default();
        let message = || String::from_utf8_lossy(&status.message).into_owned();
        if status.code == 0 {
            if answer.denied_response.is_some() || answer.error_response.is_some() {
                return Err("the answer is OK and a denial or an error at once".into());
            }
            let granted = AllowedChanges::of(answer.ok_response.unwrap_or_default(), config)?;
            return Ok(Self::Granted(Box::new(granted)));
        }
        if answer.error_response.is_some() {
            return Err(format!("it failed with status {}: {}", status.code, message()));
        }
        let denied = answer.denied_response.unwrap_or_default();
        Ok(Self::Denied(Box::new(Denial::of(denied, message(), config))))
    }

    /// Reads an answer of the HTTP form.
    ///
    /// # Errors Its status says that it isn't an answer.
    pub fn of_http(mut answer: CallResponse, config: &Authorizer) -> Result<Self, String> {
        let status = answer.status;
        // Its hop ends here, and a reason of another attache is not ours.
        strip_response(&mut answer.headers, false, false);
        let all = |wanted: &dyn Fn(&str) -> bool| -> Vec<AuthorizerEdit> {
            let wanted = answer.headers.iter().filter(|(name, _)| {
                let name = name.lower();
                !is_of_the_message(&name) && wanted(&name)
            });
            let change = |(name, value): (attache_wire::NameRef<'_>, attache_wire::ValueRef<'_>)| {
                Some(AuthorizerEdit {
                    name: name.to_header_name()?,
                    value: value.to_header_value(),
                    how: AppendAction::Append,
                })
            };
            wanted.filter_map(change).collect()
        };
        if status == StatusCode::OK {
            let granted = AllowedChanges {
                headers: all(&|name| config.upstream_headers.iter().any(|owned| *owned == *name)),
                response: all(&|name| is_one_of(name, &config.response_headers)),
                ..AllowedChanges::default()
            };
            return Ok(Self::Granted(Box::new(granted)));
        }
        // Statuses from 600 on have no meaning.
        if status.as_u16() >= 500 || status.is_informational() {
            return Err(format!("it answered {status}"));
        }
        let headers = all(&|name| is_one_of(name, &config.denial_headers));
        let headers = headers.into_iter().map(|change| (change.name, change.value)).collect();
        let body = Bytes::from(answer.body);
        Ok(Self::Denied(Box::new(Denial { status, headers, body, detail: format!("it answered {status}") })))
    }

    /// The denial of a request that can't be sent to the authorizer.
    pub(super) fn unaskable() -> Self {
        Self::Denied(Box::new(Denial {
            status: StatusCode::FORBIDDEN,
            headers: Vec::new(),
            body: Bytes::new(),
            detail: "by HTTP an authorizer can only be asked about a path, and one that stays below `path_prefix` for every reader".into(),
        }))
    }
}

impl Denial {
    fn of(denied: DeniedHttpResponse, detail: String, config: &Authorizer) -> Self {
        let code = denied.status.map_or(0, |status| status.code);
        // An invalid denial is still a denial.
        let status = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
        let status = status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::FORBIDDEN);
        let headers = denied.headers.into_iter().filter_map(|option| field(option).ok()?);
        let headers = headers
            .filter(|change| is_one_of(change.name.as_str(), &config.denial_headers))
            .map(|change| (change.name, change.value));
        Self { status, headers: headers.collect(), body: denied.body.into(), detail }
    }
}

impl AllowedChanges {
    fn of(answer: OkHttpResponse, config: &Authorizer) -> Result<Self, String> {
        let fields = |options: Vec<HeaderValueOption>, wanted: &dyn Fn(&str) -> bool| {
            let mut changes = Vec::new();
            for option in options {
                changes.extend(field(option)?.filter(|change| wanted(change.name.as_str())));
            }
            Ok::<_, String>(changes)
        };
        let remove = answer.headers_to_remove.iter().filter_map(|name| HeaderName::from_bytes(name).ok());
        let parameter = |parameter: super::messages::QueryParameter| (parameter.key, parameter.value);
        Ok(Self {
            headers: fields(answer.headers, &|name| config.upstream_headers.iter().any(|it| *it == *name))?,
            response: fields(answer.response_headers_to_add, &|name| {
                is_one_of(name, &config.response_headers)
            })?,
            remove: remove.filter(|name| !is_of_the_message(name.as_str())).collect(),
            set_query: answer.query_parameters_to_set.into_iter().map(parameter).collect(),
            remove_query: answer.query_parameters_to_remove,
        })
    }

    /// Changes a request on its way to the upstream. The client's own headers with names that the authorizer may set
    /// are removed.
    ///
    /// # Errors
    /// The authorizer's changes can't be sent.
    pub fn apply(&self, config: &Authorizer, request: &mut RequestHead) -> Result<(), String> {
        let before = |change: &&AuthorizerEdit| {
            change.how != AppendAction::OverwriteIfExists || request.headers.contains_key(&change.name)
        };
        let changes: Vec<&AuthorizerEdit> = self.headers.iter().filter(before).collect();
        remove_fields(&mut request.headers, &config.upstream_headers);
        for change in changes {
            change.apply(&mut request.headers);
        }
        remove_fields(&mut request.headers, &self.remove);
        query::edit(request, &self.set_query, &self.remove_query)
    }

    /// Fields that are removed, from headers and from trailers.
    pub fn removed(&self) -> &[HeaderName] {
        &self.remove
    }

    /// Changes the response on its way to the client.
    pub fn apply_to_response(&self, headers: &mut Fields) {
        self.response.iter().for_each(|change| change.apply(headers));
    }

    /// True if the response changes.
    pub fn changes_response(&self) -> bool {
        !self.response.is_empty()
    }
}

impl AuthorizerEdit {
    fn apply(&self, headers: &mut Fields) {
        match self.how {
            AppendAction::Append => headers.append(&self.name, &self.value),
            AppendAction::AddIfAbsent if headers.contains_key(&self.name) => {}
            AppendAction::Overwrite | AppendAction::OverwriteIfExists | AppendAction::AddIfAbsent => {
                headers.insert(&self.name, &self.value);
            }
        }
    }
}

fn is_one_of(name: &str, wanted: &[HeaderMatch]) -> bool {
    wanted.iter().any(|wanted| wanted.matches(name))
}

/// A field of an answer; `None` for a field that must not be changed: pseudo-headers, and fields that say where a
/// message ends.
fn field(option: HeaderValueOption) -> Result<Option<AuthorizerEdit>, String> {
    let Some(header) = option.header else { return Ok(None) };
    if header.key.starts_with(b":") {
        return Ok(None);
    }
    let shown = || header.key.escape_ascii().to_string();
    let mut name = HeaderName::from_bytes(&header.key).map_err(|_| format!("`{}` is no header", shown()))?;
    if name.as_str() == X_ATTACHE_REASON.as_str() {
        // That of another attache is not ours.
        name = X_ATTACHE_UPSTREAM_REASON.to_header_name();
    }
    let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
    let value = HeaderValue::from_bytes(value).map_err(|_| format!("the value of `{name}` is none"))?;
    let how = match (option.append, option.append_action) {
        // The older field for the same action.
        (Some(m::BoolValue { value: true }), _) | (None, 0) => AppendAction::Append,
        (None, 1) => AppendAction::AddIfAbsent,
        (None, 3) => AppendAction::OverwriteIfExists,
        (Some(m::BoolValue { value: false }) | None, _) => AppendAction::Overwrite,
    };
    Ok((!is_of_the_message(name.as_str())).then_some(AuthorizerEdit { name, value, how }))
}
