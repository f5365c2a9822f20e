use super::*;
use crate::testing::{channel, next, read};

fn kept_frames(recording: &Recording) -> (usize, bool) {
    let recorded = recording.0.borrow();
    (recorded.frames.len(), recorded.lost)
}

#[tokio::test]
async fn a_second_attempt_says_what_remains_of_the_body_and_when_it_has_ended() {
    let (upload, body) = channel();
    for part in ["one", "three"] {
        upload.send(Ok(Bytes::from_static(part.as_bytes()))).unwrap();
    }
    drop(upload);
    let recording = Recording::new(body, 100);
    read(&mut recording.body()).await.unwrap();
    let mut again = recording.body();
    for (lower, last) in [(8, false), (5, false), (0, true)] {
        assert_eq!((again.size_hint().lower(), again.is_end_stream()), (lower, last));
        if !last {
            next(&mut again).await.unwrap().unwrap();
        }
    }
    assert!(next(&mut again).await.is_none());

    let recording = Recording::new(Body::full("order"), 5);
    let first = recording.body();
    assert_eq!((first.size_hint().exact(), first.is_end_stream()), (Some(5), false));
    let mut second = recording.body();
    next(&mut second).await.unwrap().unwrap();
    assert!(second.is_end_stream(), "the source says that this was its last frame");
}

#[tokio::test]
async fn a_body_of_exactly_the_buffer_is_kept_and_nothing_of_a_larger_one() {
    for (limit, kept) in [(5, (1, false)), (4, (0, true)), (0, (0, true))] {
        let recording = Recording::new(Body::full("order"), limit);
        read(&mut recording.body()).await.unwrap();
        assert_eq!(kept_frames(&recording), kept, "{limit}");
        assert_eq!((recording.whole(), recording.complete()), (!kept.1, !kept.1));
    }
    let (upload, body) = channel();
    let recording = Recording::new(body, 5);
    let mut reader = recording.body();
    for (part, kept) in [("abc", (1, false)), ("defg", (0, true)), ("h", (0, true))] {
        upload.send(Ok(Bytes::from_static(part.as_bytes()))).unwrap();
        next(&mut reader).await.unwrap().unwrap();
        assert_eq!(kept_frames(&recording), kept, "{part}");
    }
}

#[tokio::test]
async fn attempts_read_a_complete_body_at_the_same_time_and_an_incomplete_one_never() {
    let (upload, body) = channel();
    upload.send(Ok(Bytes::from_static(b"or"))).unwrap();
    let recording = Recording::new(body, 100);
    let mut first = recording.body();
    next(&mut first).await.unwrap().unwrap();
    assert!(!recording.complete() && recording.whole());
    let mut second = recording.body();
    assert!(!first.is_end_stream(), "an end would make a shorter body of it");
    assert!(next(&mut first).await.unwrap().is_err());
    assert!(!first.is_end_stream());

    upload.send(Ok(Bytes::from_static(b"der"))).unwrap();
    drop(upload);
    assert_eq!(read(&mut second).await.unwrap(), b"order");
    assert!(recording.complete() && second.is_end_stream());
    assert!(!first.is_end_stream());
    assert_eq!(read(&mut first).await.unwrap(), b"der");
    assert_eq!(read(&mut recording.body()).await.unwrap(), b"order");
}

#[tokio::test]
async fn a_failed_body_is_neither_whole_nor_ended() {
    let (upload, body) = channel();
    upload.send(Err(BodyError::new(Reason::ClientClosed))).unwrap();
    drop(upload);
    let recording = Recording::new(body, 100);
    let mut first = recording.body();
    assert!(next(&mut first).await.unwrap().is_err());
    assert!(!recording.whole() && !recording.complete() && !first.is_end_stream());
}

#[tokio::test]
async fn after_the_last_attempt_has_begun_nothing_more_is_kept() {
    let (upload, body) = channel();
    let recording = Recording::new(body, 100);
    let mut first = recording.body();
    upload.send(Ok(Bytes::from_static(b"one"))).unwrap();
    next(&mut first).await.unwrap().unwrap();
    let mut second = recording.body();
    recording.stop();
    next(&mut second).await.unwrap().unwrap();
    assert_eq!(kept_frames(&recording), (0, true), "it has read what was kept");
    upload.send(Ok(Bytes::from_static(b"two"))).unwrap();
    next(&mut second).await.unwrap().unwrap();
    assert_eq!(kept_frames(&recording), (0, true));
    drop(upload);
    assert!(next(&mut second).await.is_none() && second.is_end_stream());
    assert!(
        !first.is_end_stream() && next(&mut first).await.unwrap().is_err(),
        "it has read one part of two"
    );
}

/// Data, trailers, and then nothing: it must not be asked again.
struct WithTrailers(u8);

impl HttpBody for WithTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0 += 1;
        Poll::Ready(match self.0 {
            1 => Some(Ok(Frame::data(Bytes::from_static(b"data")))),
            2 => {
                let value = http::HeaderValue::from_static("0");
                Some(Ok(Frame::trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    value,
                )]))))
            }
            3 => None,
            _ => panic!("a body that has ended was asked again"),
        })
    }
}

#[tokio::test]
async fn trailers_are_sent_again_and_count_with_their_bytes() {
    // 4 bytes of data, and 12 of trailers.
    for (limit, kept) in [(16, true), (15, false)] {
        let recording = Recording::new(Body::stream(WithTrailers(0)), limit);
        let mut first = recording.body();
        while next(&mut first).await.is_some() {}
        assert!(next(&mut first).await.is_none());
        assert_eq!(recording.complete(), kept, "{limit}");
        if kept {
            let mut again = recording.body();
            assert_eq!(again.size_hint().lower(), 4, "trailers are no bytes of the body");
            assert!(next(&mut again).await.unwrap().unwrap().is_data());
            assert!(next(&mut again).await.unwrap().unwrap().is_trailers());
            assert!(next(&mut again).await.is_none());
        }
    }
}
