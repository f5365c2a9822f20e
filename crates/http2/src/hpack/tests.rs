#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap()).collect()
}

type TextField = (String, String);

fn read(decoder: &mut HpackDecoder, block: &[u8]) -> Option<Vec<TextField>> {
    let mut all = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder.decode(block, |field| all.push((text(field.name), text(field.value)))).ok()?;
    Some(all)
}

fn pairs(text: &str) -> Vec<TextField> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line[1..].split_once(": ").unwrap();
            (format!("{}{name}", &line[..1]), value.to_owned())
        })
        .collect()
}

#[test]
fn the_rfc_s_requests_are_read_and_fill_the_tables_as_in_the_rfc() {
    // Appendix C.3 without and C.4 with Huffman coding.
    let wanted = [
        (":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com", 57),
        (":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache", 110),
        (
            ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value",
            164,
        ),
    ];
    for blocks in [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ] {
        let mut decoder = HpackDecoder::default();
        for (block, (fields, size)) in blocks.iter().zip(wanted) {
            assert_eq!(read(&mut decoder, &bytes(block)).unwrap(), pairs(fields));
            assert_eq!(decoder.size(), size);
        }
    }
}

#[test]
fn the_rfc_s_responses_evict_the_entries_as_in_the_rfc() {
    // Appendix C.6, in a table of 256 bytes.
    let mut decoder = HpackDecoder::with_table(256);
    for (block, status, size) in [
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "302",
            222,
        ),
        ("4883640effc1c0bf", "307", 222),
        (
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            "200",
            215,
        ),
    ] {
        let fields = read(&mut decoder, &bytes(block)).unwrap();
        assert_eq!((fields[0].1.as_str(), decoder.size()), (status, size));
    }
}

#[test]
fn an_invalid_block_is_refused() {
    for block in [
        "80",            // index 0
        "be",            // an entry that doesn't exist
        "7f80808080 01", // an integer that doesn't end
        "40 0a 61",      // a cut string
        "3f e2 1f",      // a table above SETTINGS_HEADER_TABLE_SIZE
        "82 20",         // a change of size after a field
        "04 82 ff ff",   // EOS within a string (padding of more than 7 bits)
        "04 81 00",      // padding of zeros
    ] {
        assert_eq!(read(&mut HpackDecoder::default(), &bytes(block)), None, "{block}");
    }
}

#[test]
fn a_field_that_is_sent_again_becomes_one_byte() {
    let (mut encoder, mut decoder) = (HpackEncoder::default(), HpackDecoder::default());
    let field = |name: &'static [u8], value: &'static [u8]| Field {
        tag: Tag::of(name),
        name,
        value,
        sensitive: false,
    };
    let all = [
        field(b"user-agent", b"x/1"),
        field(b"x-own", b"1"),
        field(b"authorization", b"Bearer abc"),
        field(b"cookie", b"a=b"),
    ];
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        for field in all {
            encoder.field(&mut out, field);
        }
        sizes.push(out.len());
        let read = read(&mut decoder, &out).unwrap();
        assert_eq!(read, pairs("user-agent: x/1\nx-own: 1\nauthorization: Bearer abc\ncookie: a=b"));
    }
    assert!(sizes[0] >= sizes[1] && sizes[1] > sizes[2]);
    assert_eq!((sizes[2], sizes[3]), (2 + 13 + 6, 2 + 13 + 6), "the secrets are never indexed");
}

fn a_field() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        prop::sample::select(
            &["user-agent", "x-a", "x-b", "content-type", "link", "te", "date", "X-Upper"][..]
        )
        .prop_map(str::to_owned),
        "[a-z-]{1,40}",
    ];
    let value = prop_oneof!["[ -~]{0,8}", "[a-c]{0,2}", "[ -~]{0,1500}"];
    (name, value)
}

proptest! {
    /// The list of fields is the model: what one side writes, the other side reads, for any sizes of the tables.
    #[test]
    fn a_written_block_is_read_back(
        messages in proptest::collection::vec((proptest::collection::vec(a_field(), 0..12), prop::option::of(0_u32..6000)), 1..40),
    ) {
        let (mut encoder, mut decoder) = (HpackEncoder::default(), HpackDecoder::default());
        for (fields, limit) in messages {
            if let Some(limit) = limit {
                encoder.limit(limit);
            }
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            for (name, value) in &fields {
                let tag = Tag::of(name.to_ascii_lowercase().as_bytes());
                encoder.field(&mut out, Field { tag, name: name.as_bytes(), value: value.as_bytes(), sensitive: false });
            }
            let lower: Vec<_> = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            prop_assert_eq!(read(&mut decoder, &out), Some(lower));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let mut decoder = HpackDecoder::default();
        for block in blocks {
            if read(&mut decoder, &block).is_none() {
                break;
            }
            prop_assert!(decoder.size() <= TABLE);
        }
    }
}
