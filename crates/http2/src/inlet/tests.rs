#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end on what it did not expect")]

use std::{collections::VecDeque, future::poll_fn};

use proptest::prelude::*;

use super::*;
use crate::{Frames, Reader};

/// Gives its pieces, one with each read, and then nothing.
#[derive(Debug, Default)]
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            Some(mut piece) => {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [Head { length: payload.len(), kind, flags, stream }.bytes().as_slice(), payload].concat()
}

/// What h2 would have got until the socket has nothing more.
fn all(inlet: &mut Inlet, io: &mut Pieces, room: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        let mut space = vec![0; room];
        let mut buf = ReadBuf::new(&mut space);
        match inlet.poll_read(&mut cx, io, &mut buf, |_| Ok(())) {
            Poll::Ready(read) => {
                read.unwrap();
                assert!(!buf.filled().is_empty(), "an end that nobody said");
                got.extend_from_slice(buf.filled());
            }
            Poll::Pending => return got,
        }
    }
}

fn frames(bytes: &[u8]) -> Vec<(Head, Vec<u8>)> {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while let Some(head) = rest.first_chunk::<HEAD>() {
        let head = Head::parse(head);
        let (payload, later) = rest[HEAD..].split_at(head.length);
        all.push((head, payload.to_vec()));
        rest = later;
    }
    assert!(rest.is_empty());
    all
}

fn open(streams: &Rc<Streams>) -> Inlet {
    let mut inlet = Inlet::of_client(Rc::clone(streams));
    let begin = [crate::PREFACE.to_vec(), frame(kind::HEADERS, 4, 1, b"x"), frame(kind::HEADERS, 4, 3, b"x")];
    let n = begin.concat().len();
    assert_eq!(all(&mut inlet, &mut Pieces([begin.concat()].into()), 100).len(), n);
    inlet
}

#[test]
fn small_frames_of_one_read_go_on_as_one() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let read = [
        frame(kind::DATA, 0, 1, b"a"),
        frame(kind::DATA, 0, 3, b"1"),
        frame(kind::DATA, 0, 1, b"b"),
        frame(kind::PING, 0, 0, b"12345678"),
        frame(kind::DATA, 0, 3, b""),
        frame(kind::DATA, 1, 3, b"2"),
    ];
    let got = frames(&all(&mut inlet, &mut Pieces([read.concat()].into()), 1000));
    let seen: Vec<_> =
        got.iter().map(|(head, payload)| (head.stream, head.flags, payload.as_slice())).collect();
    assert_eq!(seen, [(0, 0, b"12345678".as_slice()), (3, 1, b"12"), (1, 0, b"ab")]);
}

#[test]
fn padding_of_small_frames_is_taken_off_and_given_back_to_the_windows() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let _reader = streams.reader(1);
    let padded = frame(kind::DATA, 8, 1, &[&[254_u8, b'x'][..], &[0; 254]].concat());
    let nothing = frame(kind::DATA, 8, 1, &[&[255_u8][..], &[0; 255]].concat());
    let got = all(&mut inlet, &mut Pieces([padded, nothing.repeat(299)].into()), 5000);
    assert_eq!(frames(&got), [(Head { length: 1, kind: kind::DATA, flags: 0, stream: 1 }, b"x".to_vec())]);
    let mut outlet = crate::Outlet::of_server();
    let mut out = BytesMut::new();
    // Not in the midst of a frame of h2's.
    outlet.look(&[0, 0, 1, 0, 0], |_, _| Ok(())).unwrap();
    outlet.give_back(&mut inlet, &mut out);
    assert!(out.is_empty());
    outlet.look(&[0, 0, 0, 1, 0], |_, _| Ok(())).unwrap();
    outlet.give_back(&mut inlet, &mut out);
    let mut given = [0, 0];
    for (head, payload) in frames(&out) {
        assert_eq!(head.kind, kind::WINDOW_UPDATE);
        given[head.stream as usize] += u32::from_be_bytes(payload.try_into().unwrap());
    }
    let taken = 255 + 299 * 256;
    assert!(taken - given[1] < 4096 && taken - given[0] < 65_536, "{given:?} of {taken}");
    assert!(given.iter().all(|given| *given <= taken));
    // What can't be is the h2 crate's to refuse.
    let wrong = frame(kind::DATA, 8, 1, &[9, 0, 0]);
    assert_eq!(all(&mut inlet, &mut Pieces([wrong.clone()].into()), 5000), wrong);
}

#[test]
fn padding_of_many_streams_is_forgotten_by_none_of_the_windows() {
    let streams = Rc::new(Streams::default());
    let mut inlet = Inlet::of_server(streams);
    let one = |n: u32| frame(kind::DATA, 8, 2 * n + 1, &[&[255_u8][..], &[0; 255]].concat());
    let read = (0..1000).flat_map(one).collect();
    assert_eq!(all(&mut inlet, &mut Pieces([read].into()), 5000), b"");
    assert!(inlet.padding.len() <= MOST_PADDED);
    let mut out = BytesMut::new();
    inlet.take_updates(&mut out);
    let given = |all: bool| {
        let mine = frames(&out).into_iter().filter(|(head, _)| (head.stream == 0) == all);
        mine.map(|(_, payload)| u32::from_be_bytes(payload.try_into().unwrap())).sum::<u32>()
    };
    assert_eq!(given(true) + inlet.padding_of_all, 256_000);
    assert_eq!(given(false) + inlet.padding.values().sum::<u32>(), 256_000);
}

#[test]
fn nothing_is_kept_for_empty_frames_of_a_stream_that_nobody_reads() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let read = frame(kind::DATA, 0, 1, b"");
    assert_eq!(all(&mut inlet, &mut Pieces([read].into()), 1000), b"");
    assert!(streams.is_empty());
}

#[test]
fn a_slow_readers_frames_wait_as_bytes_and_come_when_it_has_read() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let reader: Reader = streams.reader(1);
    let one_by_one = (0..100).map(|n| frame(kind::DATA, 0, 1, &[n]));
    let got = frames(&all(&mut inlet, &mut Pieces(one_by_one.collect()), 1000));
    assert!(got.len() <= 8, "{}", got.len());
    let mut payload = got.into_iter().flat_map(|(_, payload)| payload).collect::<Vec<_>>();
    // Another stream's frames don't wait for it.
    let other = frames(&all(&mut inlet, &mut Pieces([frame(kind::DATA, 0, 3, b"x")].into()), 1000));
    assert_eq!(other.len(), 1);
    for _ in 0..8 {
        reader.took(1);
    }
    let rest = frames(&all(&mut inlet, &mut Pieces::default(), 1000));
    assert_eq!(rest.len(), 1);
    payload.extend(rest.into_iter().flat_map(|(_, payload)| payload));
    assert_eq!(payload, (0..100).collect::<Vec<_>>());
}

#[test]
fn what_is_held_goes_before_trailers_and_is_not_lost_with_its_reader() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let (first, second) = (streams.reader(1), streams.reader(3));
    let mut pieces: VecDeque<_> = (0..50).map(|n| frame(kind::DATA, 0, 1, &[n])).collect();
    pieces.extend((0..50).map(|n| frame(kind::DATA, 0, 3, &[n])));
    pieces.push_back(frame(kind::HEADERS, 5, 1, b"trailers"));
    let mut got = frames(&all(&mut inlet, &mut Pieces(pieces), 1000));
    assert_eq!(got.pop().unwrap().1, b"trailers");
    let bytes =
        |stream| got.iter().filter(|(head, _)| head.stream == stream).map(|(_, p)| p.len()).sum::<usize>();
    assert_eq!(bytes(1), 50);
    assert!(bytes(3) < 50);
    drop(second);
    let rest = frames(&all(&mut inlet, &mut Pieces::default(), 1000));
    assert_eq!(bytes(3) + rest[0].1.len(), 50, "the connection's window counts them");
    drop(first);
}

/// Whether the h2 crate will find the last of these frames malformed.
fn is_malformed(blocks: &[Vec<u8>], requests: bool, size: usize) -> bool {
    let streams = Rc::new(Streams::default());
    let mut inlet = if requests { Inlet::of_client(streams) } else { Inlet::of_server(streams) };
    let begin = if requests { crate::PREFACE } else { &[] };
    let sent = [begin.to_vec(), blocks.concat()].concat();
    let got = all(&mut inlet, &mut Pieces(sent.chunks(size).map(<[u8]>::to_vec).collect()), 1000);
    if got == sent {
        return false;
    }
    let mut wanted = frames(&sent[begin.len()..]);
    let last = wanted.last_mut().unwrap();
    last.1.extend_from_slice(MALFORMED);
    last.0.length = last.1.len();
    assert_eq!(frames(&got[begin.len()..]), wanted);
    true
}

#[test]
fn pseudo_fields_stand_where_they_belong_and_paths_have_no_fragment() {
    // GET http / and `te: trailers` in the static table's and in own words.
    let request = frame(kind::HEADERS, 4, 1, &[0x82, 0x86, 0x84]);
    let continued =
        [frame(kind::HEADERS, 0, 3, &[0x82, 0x86, 0x04, 4]), frame(kind::CONTINUATION, 4, 3, b"/a#b")];
    let path = frame(kind::HEADERS, 5, 1, &[0x84]);
    let plain = frame(kind::HEADERS, 5, 1, b"\x00\x02te\x01x");
    let status = frame(kind::HEADERS, 4, 1, &[0x88]);
    for size in [1, 5, 9, 20, 1000] {
        let check = |blocks: &[&[u8]], requests, wanted| {
            let blocks: Vec<_> = blocks.iter().map(|block| block.to_vec()).collect();
            assert_eq!(is_malformed(&blocks, requests, size), wanted, "{blocks:?} in pieces of {size}");
        };
        check(&[&request], true, false);
        check(&[&request, &plain], true, false);
        check(&[&request, &path], true, true);
        check(&[&request, &frame(kind::HEADERS, 5, 1, &[0x88])], true, true);
        check(&[&request, &continued[0], &continued[1]], true, true);
        check(&[&frame(kind::HEADERS, 5, 1, b"\x82\x86\x44\x04/a#b")], true, true);
        check(&[&status], false, false);
        check(&[&status, &plain], false, false);
        check(&[&frame(kind::HEADERS, 4, 1, &[0x88, 0x84])], false, true);
        // `:status` in trailers, whether anybody reads the answer yet or not; not before it.
        let early = frame(kind::HEADERS, 4, 1, b"\x08\x03103");
        let ended = frame(kind::HEADERS, 5, 1, &[0x88]);
        check(&[&early, &early, &status], false, false);
        check(&[&early, &ended], false, false);
        check(&[&status, &ended], false, true);
        check(&[&early, &status, &ended], false, true);
        check(&[&status, &frame(kind::DATA, 0, 1, b"x"), &ended], false, true);
        check(&[&status, &early], false, true);
        check(&[&status, &path], false, true);
        check(
            &[&status, &frame(kind::HEADERS, 0, 1, &[]), &frame(kind::CONTINUATION, 4, 1, &[0x88])],
            false,
            true,
        );
        // Where a stream has ended, HEADERS are no trailers but an error that h2 says (section 5.1).
        let ended = frame(kind::HEADERS, 5, 1, &[0x82, 0x86, 0x84]);
        check(&[&ended, &path], true, false);
        check(&[&request, &frame(kind::DATA, 1, 1, b"x"), &path], true, false);
        check(&[&request, &frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), &path], true, false);
        // An entry that was made earlier is known by its number.
        let named = frame(kind::HEADERS, 4, 1, b"\x82\x86\x44\x04/abc");
        check(&[&named, &frame(kind::HEADERS, 5, 1, &[0xbe])], true, true);
    }
}

#[test]
fn padding_and_priority_of_a_malformed_head_are_understood() {
    let streams = Rc::new(Streams::default());
    let mut inlet = Inlet::of_client(streams);
    let sent = frame(kind::HEADERS, 4 | 8 | 0x20, 1, b"\x02\0\0\0\0\x10\x82\x86\x04\x02/#\0\0");
    let got = all(&mut inlet, &mut Pieces([[crate::PREFACE, &sent].concat()].into()), 1000);
    let wanted = [b"\0\0\0\0\x10\x82\x86\x04\x02/#".as_slice(), MALFORMED].concat();
    assert_eq!(frames(&got[crate::PREFACE.len()..])[0].1, wanted);
}

#[test]
fn a_stream_that_nobody_opened_is_h2s_to_judge() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let read = [frame(kind::DATA, 0, 5, b""), frame(kind::DATA, 0, 0, b"")];
    assert_eq!(frames(&all(&mut inlet, &mut Pieces([read.concat()].into()), 1000)).len(), 2);
}

#[tokio::test]
async fn an_end_within_a_frame_is_passed_on_as_it_is() {
    let streams = Rc::new(Streams::default());
    let mut inlet = open(&streams);
    let mut io = frame(kind::DATA, 0, 1, b"abc");
    io.pop();
    let mut io = io.as_slice();
    let mut got = Vec::new();
    loop {
        let mut space = [0; 4];
        let mut buf = ReadBuf::new(&mut space);
        poll_fn(|cx| inlet.poll_read(cx, &mut io, &mut buf, |_| Ok(()))).await.unwrap();
        if buf.filled().is_empty() {
            break;
        }
        got.extend_from_slice(buf.filled());
    }
    assert_eq!(got, frame(kind::DATA, 0, 1, b"abc")[..11]);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(1_u32), Just(3)];
    let size = prop_oneof![4 => 0..20_usize, 1 => 200..600_usize, 1 => Just(16_384_usize)];
    (0..10_u8, stream, size, any::<u8>()).prop_map(|(what, stream, size, fill)| match what {
        0 => frame(kind::PING, 0, 0, &[fill; 8]),
        1 => frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, fill.max(1)]),
        2 => frame(
            kind::DATA,
            8,
            stream,
            &[&[2][..], &vec![fill; size], &[0, 0]].concat()[..size.clamp(3, 16_384)],
        ),
        _ => frame(kind::DATA, 0, stream, &vec![fill; size]),
    })
}

proptest! {
    /// Whatever comes, in whatever pieces, and however it is read: each stream's bytes are the same, and all else is.
    #[test]
    fn no_byte_is_lost_or_moved(
        sent in prop::collection::vec(any_frame(), 1..60),
        sizes in prop::collection::vec(1..3000_usize, 1..20),
        room in 9..5000_usize,
        reads in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let streams = Rc::new(Streams::default());
        let mut inlet = open(&streams);
        let readers = [streams.reader(1), streams.reader(3)];
        let sent = [sent.concat(), frame(kind::DATA, 1, 1, b""), frame(kind::HEADERS, 5, 3, b"t")].concat();
        let (mut rest, mut got) = (sent.as_slice(), Vec::new());
        for (size, read) in sizes.iter().cycle().zip(reads.iter().cycle()) {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*size).min(rest.len()));
            rest = later;
            got.extend(all(&mut inlet, &mut Pieces([piece.to_vec()].into()), room));
            if *read {
                for reader in &readers {
                    reader.took(1);
                }
            }
        }
        // The heads that pass are found by both ways of looking alike.
        let mut heads = 0;
        Frames::after(0).look(&got, |_, _| { heads += 1; Ok(()) }).unwrap();
        let (sent, got) = (frames(&sent), frames(&got));
        prop_assert_eq!(heads, got.len());
        let data = |all: &[(Head, Vec<u8>)], stream: u32| {
            let of = |head: &Head| head.stream == stream && head.kind == kind::DATA;
            all.iter().filter(|(head, _)| of(head)).flat_map(|(head, payload)| {
                let padding = if head.is_padded() { 2 } else { 0 };
                payload[padding / 2..payload.len() - padding].to_vec()
            }).collect::<Vec<_>>()
        };
        let other = |all: &[(Head, Vec<u8>)]| {
            all.iter().filter(|(head, _)| head.kind != kind::DATA).cloned().collect::<Vec<_>>()
        };
        for stream in [1, 3] {
            prop_assert_eq!(data(&sent, stream), data(&got, stream));
            let ends = |all: &[(Head, Vec<u8>)]| {
                let last = all.iter().rposition(|(head, _)| head.stream == stream).unwrap();
                all[last].0.ends_stream()
            };
            prop_assert!(ends(&got), "nothing comes behind the end");
        }
        prop_assert_eq!(other(&sent), other(&got));
        prop_assert!(got.iter().all(|(head, _)| head.length <= 16_384));
    }
}
