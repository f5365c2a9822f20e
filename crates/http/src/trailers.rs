//! Bodies without the trailers that were removed from the head.
//!
//! Some applications merge trailers into the headers (RFC 9110 section 6.5.1). Such an application would find a field in the trailers that
//! the route removed from the head or set to another value.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_config::model::HeaderNames;
use attache_wire::{Fields, header::CONTENT_LENGTH};
use bytes::Bytes;
use http::{HeaderName, Version};
use http_body::{Frame, SizeHint};

use crate::{
    Body, BodyError,
    sanitize::{remove_from_trailers, remove_odd_names},
};

/// Whether trailers can follow such a head. In HTTP/1 they can only follow a chunked body (RFC 9112 section 7.1.2).
pub fn may_have_trailers(version: Version, headers: &Fields) -> bool {
    version == Version::HTTP_2 || !headers.contains_key(CONTENT_LENGTH)
}

impl Body {
    /// The same body without these fields in its trailers, in any spelling with an underscore for a hyphen, and without the fields whose
    /// names `names` removes. It costs one allocation if the body has more to come.
    #[must_use]
    pub fn without_trailers(self, fields: &Rc<[HeaderName]>, names: HeaderNames) -> Self {
        if (fields.is_empty() && names.keeps_all()) || http_body::Body::is_end_stream(&self) {
            return self;
        }
        Self::stream(WithoutFields { body: self, fields: fields.clone(), names })
    }
}

struct WithoutFields {
    body: Body,
    fields: Rc<[HeaderName]>,
    names: HeaderNames,
}

impl http_body::Body for WithoutFields {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            remove_from_trailers(trailers, &self.fields);
            remove_odd_names(trailers, self.names);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    struct Trailers(Option<HeaderMap>);

    impl http_body::Body for Trailers {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    #[test]
    fn trailers_lack_the_fields_that_the_head_lost() {
        let names = ["x-tenant", "x_tenant", "x-sum"].map(HeaderName::from_static);
        let trailers: HeaderMap =
            names.into_iter().map(|name| (name, HeaderValue::from_static("1"))).collect();
        let fields: Rc<[HeaderName]> = [HeaderName::from_static("x-tenant")].into();
        let mut body =
            Body::stream(Trailers(Some(trailers))).without_trailers(&fields, HeaderNames::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = http_body::Body::poll_frame(Pin::new(&mut body), &mut cx) else {
            panic!("no frame");
        };
        let left = frame.into_trailers().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["x-sum"]);
    }
}
