//! The headers that a log's templates contain. Only these are ever kept.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use attache_config::model::{LogField, LogPart, LogTemplate};
use attache_wire::{Fields, ValueRef};
use http::{HeaderName, HeaderValue};

/// Names of headers. The values of an exchange are kept in this order, those of the request first.
#[derive(Debug, Default)]
pub(crate) struct LoggedHeaders {
    /// Distinguishes the names of one config from those of another: a reload may happen while a request runs.
    id: usize,
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

impl LoggedHeaders {
    pub(super) fn of<'a>(templates: impl Iterator<Item = &'a LogTemplate>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let mut names = Self { id: NEXT.fetch_add(1, Relaxed), ..Self::default() };
        for part in templates.flat_map(|template| &template.0) {
            let (list, name) = match part {
                LogPart::Field(LogField::RequestHeader(name)) => (&mut names.request, name),
                LogPart::Field(LogField::ResponseHeader(name)) => (&mut names.response, name),
                _ => continue,
            };
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
        names
    }

    pub(super) fn request(&self, name: &HeaderName) -> Option<usize> {
        self.request.iter().position(|known| known == name)
    }

    pub(super) fn response(&self, name: &HeaderName) -> Option<usize> {
        self.response.iter().position(|known| known == name).map(|at| self.request.len() + at)
    }

    pub(super) fn note_request(&self, noted: &RefCell<NamedHeaders>, headers: &Fields) {
        if self.request.is_empty() {
            return;
        }
        // One allocation, and only if a log contains headers. Each value is copied, because the head moves on.
        let mut noted = noted.borrow_mut();
        noted.of = self.id;
        noted.values.clear();
        noted.values.extend(self.request.iter().map(|name| headers.get(name).map(ValueRef::to_header_value)));
    }

    pub(super) fn note_response(&self, noted: &RefCell<NamedHeaders>, headers: &Fields) {
        if self.response.is_empty() {
            return;
        }
        let mut noted = noted.borrow_mut();
        if noted.of != self.id {
            noted.values.clear();
        }
        noted.of = self.id;
        noted.values.resize(self.request.len(), None);
        noted
            .values
            .extend(self.response.iter().map(|name| headers.get(name).map(ValueRef::to_header_value)));
    }

    /// The value that was kept for this name.
    pub(super) fn noted<'a>(&self, noted: &'a NamedHeaders, at: usize) -> Option<&'a HeaderValue> {
        if noted.of == self.id { noted.values.get(at)?.as_ref() } else { None }
    }
}

/// The headers of an exchange that a log contains.
#[derive(Debug, Default)]
pub(crate) struct NamedHeaders {
    of: usize,
    values: Vec<Option<HeaderValue>>,
}
