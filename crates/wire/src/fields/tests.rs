use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::header::{CONTENT_TYPE, HOST, SET_COOKIE, VIA};

fn text(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

#[test]
fn names_are_found_in_any_case_whether_they_are_known_or_not() {
    let mut fields = Fields::new();
    fields.append(HOST, value("a"));
    fields.append("X-Own", value("1"));
    fields.append(HeaderName::from_static("x-own"), value("2"));
    assert_eq!(fields.get("hOsT").unwrap(), "a");
    assert_eq!(fields.get_all("x-OWN").map(ValueRef::as_bytes).collect::<Vec<_>>(), [b"1", b"2"]);
    assert!(fields.contains_key("x-own") && !fields.contains_key("x-ow") && !fields.contains_key(VIA));
    assert!(fields.remove("X-OWN") && !fields.remove("x-own"));
    assert_eq!(text(&fields), ["host: a"]);
}

#[test]
fn a_value_takes_the_place_of_all_before_it() {
    let mut fields: Fields =
        [("set-cookie", value("1")), ("via", value("2")), ("set-cookie", value("3"))].into_iter().collect();
    fields.insert(SET_COOKIE, value("4"));
    assert_eq!(text(&fields), ["set-cookie: 4", "via: 2"]);
    fields.rename(VIA, CONTENT_TYPE);
    assert_eq!(text(&fields), ["set-cookie: 4", "content-type: 2"]);
    assert!(!fields.contains_key(VIA) && fields.contains_key(CONTENT_TYPE));
    fields.retain(|name, _| name != SET_COOKIE);
    assert!(!fields.contains_key(SET_COOKIE));
}

#[test]
fn no_name_and_no_value_can_begin_another_line() {
    let mut fields = Fields::new();
    for name in ["", "a b", "a:", "a\r\nb", "a\n", "\u{e9}"] {
        fields.append(name, value("1"));
        fields.insert(name, value("1"));
        assert!(fields.try_insert(name, b"1").is_ok());
    }
    for value in [&b"a\r\nb: c"[..], b"\n", b"a\0", b"\x7f"] {
        assert_eq!(fields.try_insert(HOST, value), Err(InvalidValue));
    }
    assert!(fields.is_empty());
    assert!(fields.try_insert(HOST, b"a\tb\xff").is_ok());
}

#[test]
fn a_sensitive_value_stays_sensitive_for_hpack() {
    let mut secret = value("s");
    secret.set_sensitive(true);
    let mut fields = Fields::new();
    fields.insert("authorization", &secret);
    fields.insert("accept", value("*"));
    assert!(!format!("{fields:?}").contains("\"s\""));
    let map = HeaderMap::from(fields);
    assert!(map["authorization"].is_sensitive() && !map["accept"].is_sensitive());
}

/// The fields of a request's head.
fn read(lines: &str) -> Fields {
    let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
    let limits = crate::HeadLimits { line: 200, size: 200, count: 9 };
    let head = crate::request::read(
        &mut bytes::BytesMut::from(&*text),
        &limits,
        crate::request::TargetStrictness::Strict,
    );
    head.unwrap().unwrap().1.headers.clone()
}

#[test]
fn lines_of_the_head_and_added_ones_are_kept_by_their_own_names_and_values() {
    let mut fields = read("Host: h\r\nX-Old: 1\r\nVia: 2\r\n");
    fields.append("x-new", value("2"));
    fields.append("x-old", value("1"));
    fields.retain(|name, value| name == HOST || value == "2");
    assert_eq!(text(&fields), ["host: h", "via: 2", "x-new: 2"]);
    assert!(fields.contains_key(HOST) && fields.contains_key(VIA) && !fields.contains_key("x-old"));
}

#[test]
fn a_name_that_others_may_read_with_an_underscore_is_noted_wherever_it_comes_from() {
    for (name, expected) in [("x-own", false), ("x_own", true), ("x.own", true)] {
        assert_eq!(read(&format!("Host: h\r\n{name}: 1\r\n")).may_be_underscored(), expected, "{name}");
        assert_eq!(read(&format!("Host: h\r\n{name}:1\r\n")).may_be_underscored(), expected, "{name}");
        for mut fields in [Fields::new(), Fields::with_capacity(8, 4096)] {
            assert!(fields.append_read(None, name.as_bytes(), b"1", false));
            assert_eq!(fields.may_be_underscored(), expected, "{name}");
        }
        let mut fields = Fields::new();
        fields.append(name, value("1"));
        assert_eq!(fields.may_be_underscored(), expected, "{name}");
    }
    assert!(!read("Host: h\r\nContent-Length: 0\r\n").may_be_underscored());
}

#[test]
fn a_name_of_a_line_names_the_same_field() {
    let fields = read("Host: h\r\nX-Own: 1\r\n");
    let mut left = fields.clone();
    for (name, found) in &fields {
        assert_eq!(left.get(name).map(ValueRef::as_bytes), Some(found.as_bytes()));
        assert!(left.remove(name));
    }
    assert!(left.is_empty());
    let (name, found) = fields.iter().next().unwrap();
    assert!(name == HOST && name != VIA);
    let other = "H".to_owned();
    assert!(found == "h" && found != "H" && found != *"hh" && found != other);
    assert_ne!(fields, left);
    assert_ne!(fields, read("Host: h\r\nX-Own: 2\r\n"));
    assert_ne!(fields, read("Host: h\r\nX-Other: 1\r\n"));
    let (space, colon) = (&"a b", &"a:");
    left.append(space, value("1"));
    left.insert(colon, value("1"));
    assert!(left.is_empty(), "a name behind a reference is checked as well");
}

#[derive(Clone, Debug)]
enum FieldEdit {
    Insert(usize, u8),
    Append(usize, u8),
    Remove(usize),
}

proptest! {
    /// After any edits, the fields are the same as in the `http` crate's map after the same edits.
    #[test]
    fn edits_have_the_same_result_as_in_a_map(
        changes in proptest::collection::vec(
            prop_oneof![
                (0..6_usize, any::<u8>()).prop_map(|(name, value)| FieldEdit::Insert(name, value)),
                (0..6_usize, any::<u8>()).prop_map(|(name, value)| FieldEdit::Append(name, value)),
                (0..6_usize).prop_map(FieldEdit::Remove),
            ],
            0..40,
        ),
    ) {
        let names = ["host", "x-a", "x-b", "via", "set-cookie", "x_c"];
        let (mut fields, mut map) = (Fields::new(), HeaderMap::new());
        for change in changes {
            match change {
                FieldEdit::Insert(name, value) => {
                    fields.insert(names[name], u64::from(value));
                    map.insert(names[name], HeaderValue::from(u64::from(value)));
                }
                FieldEdit::Append(name, value) => {
                    fields.append(names[name], u64::from(value));
                    map.append(names[name], HeaderValue::from(u64::from(value)));
                }
                FieldEdit::Remove(name) => {
                    prop_assert_eq!(fields.remove(names[name]), map.remove(names[name]).is_some());
                }
            }
            for name in names {
                prop_assert_eq!(fields.contains_key(name), map.contains_key(name));
                prop_assert!(fields.get_all(name).map(ValueRef::to_header_value).eq(map.get_all(name).iter().cloned()));
            }
            prop_assert!(fields.may_be_underscored() || !map.contains_key("x_c"));
        }
        prop_assert_eq!(&fields, &Fields::from(&map));
        prop_assert_eq!(HeaderMap::from(fields), map);
    }
}
